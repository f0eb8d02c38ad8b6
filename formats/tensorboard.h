// TensorBoard event files, scalars only. Record: u64 length, u32 masked crc32c(length bytes), data,
// u32 masked crc32c(data); data is a protobuf Event written by hand. docs/formats.md has the field numbers.
// One writer a file; append-only, handed to the system on every scalar batch, so that a killed run keeps its
// curve; a resumed one empties the directory and draws it again (train/metrics.h). Throws IoError.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/file.h"

namespace retort::formats {

class TensorboardWriter {
 public:
  explicit TensorboardWriter(const Path& directory);  // makes the directory and a new event file in it
  ~TensorboardWriter();
  void scalars(int64_t step, double wall_time, const std::map<std::string, double>& values);
  const Path& path() const { return path_; }

 private:
  Path path_;
  std::unique_ptr<WritableFile> file_;
};

// The bytes of an event, and of its record in a file.
std::string version_event(double wall_time);
std::string scalars_event(int64_t step, double wall_time, const std::map<std::string, double>& values);
std::string tensorboard_record(std::string_view event);

uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace retort::formats
