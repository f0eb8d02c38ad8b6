#include "train/range_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "core/errno_text.h"
#include "core/error.h"

namespace retort::train {
namespace {

class LocalRange final : public WritableFile {
 public:
  LocalRange(const Path& path, uint64_t offset) : path_(path), offset_(offset) {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_errno("open");
  }
  ~LocalRange() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  void append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t done = ::pwrite(descriptor_, bytes.data(), std::min<size_t>(bytes.size(), 1u << 30),
                                    static_cast<off_t>(offset_));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail_errno("write");
      bytes = bytes.subspan(static_cast<size_t>(done));
      offset_ += static_cast<uint64_t>(done);
    }
  }
  void sync() override {
    if (::fsync(descriptor_) != 0) fail_errno("fsync");
  }
  void close() override {
    if (::close(std::exchange(descriptor_, -1)) != 0) fail_errno("close");
  }

 private:
  [[noreturn]] void fail_errno(std::string_view doing) const {
    fail<IoError>("{}: cannot {}: {}", path_.string(), doing, errno_text());
  }

  Path path_;
  uint64_t offset_;
  int descriptor_ = -1;
};

class LocalRanges final : public RangeFiles {
 public:
  std::unique_ptr<WritableFile> open_at(const Path& path, uint64_t offset) override {
    return std::make_unique<LocalRange>(path, offset);
  }
};

}  // namespace

RangeFiles& local_ranges() {
  static LocalRanges ranges;  // stateless
  return ranges;
}

}  // namespace retort::train
