// A regular file that is read by position. One that becomes shorter meanwhile ends there, and what the disk refuses is an
// IoError with the path and errno's text, where a mapping (core/file.h) would get a signal. Interrupted and short reads
// go on. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/file.h"

namespace retort {

class InputFile {
 public:
  explicit InputFile(const Path& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  size_t read(uint64_t at, std::span<std::byte> out) const;  // fewer bytes than wanted only at the end
  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened

 private:
  [[noreturn]] void fail_errno(const char* doing) const;

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace retort
