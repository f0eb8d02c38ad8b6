// A Log whose lines a test can read.
#pragma once

#include <cstdio>
#include <string>

#include "core/log.h"
#include "tests/testing.h"

namespace retort::train {

class CapturedLog {
 public:
  CapturedLog() : out_(std::fopen((directory_ / "log").c_str(), "w")), log_(out_) {}
  ~CapturedLog() { std::fclose(out_); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;
  Log& operator*() { return log_; }
  std::string text() const { return read_text(directory_ / "log"); }
  bool says(std::string_view words) const { return text().find(words) != std::string::npos; }

 private:
  testing::TemporaryDirectory directory_;
  std::FILE* out_;
  Log log_;
};

}  // namespace retort::train
