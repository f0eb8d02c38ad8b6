// The C library's pread() of a test program, which a disk may refuse and a signal interrupt. Included by one file of a program.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>

namespace retort::testing {

// What befalls reads while the object lives.
struct Reads {
  Reads() { now = this; }
  ~Reads() { now = nullptr; }
  Reads(const Reads&) = delete;
  Reads& operator=(const Reads&) = delete;

  int interruptions = 0;     // of those to come
  size_t most = SIZE_MAX;    // bytes of one
  std::string refused = {};  // EIO for files with this in their path

  static inline Reads* now = nullptr;
};

}  // namespace retort::testing

extern "C" ssize_t pread(int descriptor, void* out, size_t count, off_t at) {
  retort::testing::Reads* const reads = retort::testing::Reads::now;
  if (reads == nullptr) return ::syscall(SYS_pread64, descriptor, out, count, at);
  if (reads->interruptions > 0) {
    --reads->interruptions;
    errno = EINTR;
    return -1;
  }
  const std::string path =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor)).string();
  if (!reads->refused.empty() && path.find(reads->refused) != path.npos) {
    errno = EIO;
    return -1;
  }
  return ::syscall(SYS_pread64, descriptor, out, std::min(count, reads->most), at);
}
