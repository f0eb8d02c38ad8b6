// TensorBoard event files, scalars only. Record: u64 length, u32 masked crc32c(length bytes), data,
// u32 masked crc32c(data); data is a protobuf Event written by hand. docs/formats.md has the field numbers.
// One writer a file; append-only, flushed on every scalar batch, so that a killed run keeps its curve.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/file.h"

namespace retort::formats {

class TensorboardWriter {
 public:
  explicit TensorboardWriter(const Path& directory);  // makes the directory and a new event file in it
  ~TensorboardWriter();
  void scalars(int64_t step, double wall_time, const std::map<std::string, double>& values);

 private:
  std::unique_ptr<WritableFile> file_;
};

uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace retort::formats
