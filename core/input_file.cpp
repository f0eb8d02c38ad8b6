#include "core/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "core/errno_text.h"
#include "core/error.h"

namespace retort {

InputFile::InputFile(const Path& path) : path_(path.string()) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // waits for no pipe
  if (descriptor_ < 0) fail_errno("open");
  struct stat info {};
  const bool known = ::fstat(descriptor_, &info) == 0;
  const int reason = errno;
  if (known && S_ISREG(info.st_mode)) {
    size_ = static_cast<uint64_t>(info.st_size);
    return;
  }
  ::close(descriptor_);
  check<IoError>(!known, "{}: cannot read: not a regular file", path_);
  errno = reason;
  fail_errno("read");
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

size_t InputFile::read(uint64_t at, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        ::pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno("read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void InputFile::fail_errno(const char* doing) const {
  fail<IoError>("{}: cannot {}: {}", path_, doing, errno_text());
}

}  // namespace retort
