// Files of which several ranks write a range each, beside the FileSystem that makes them (core/file.h). Thread-safe;
// IoError names the path.
#pragma once

#include <cstdint>
#include <memory>

#include "core/file.h"

namespace retort::train {

class RangeFiles {
 public:
  virtual ~RangeFiles() = default;
  // Opens a file that exists; append() writes over its bytes from `offset` on. sync() is for the whole file, also for
  // what this process has written to it through others of these.
  virtual std::unique_ptr<WritableFile> open_at(const Path& path, uint64_t offset) = 0;
};

// The operating system's. Stateless; the same object for all.
RangeFiles& local_ranges();

}  // namespace retort::train
