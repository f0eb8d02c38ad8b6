// Memory of this process, by the kernel's own count. Benchmarks use it too, so it includes no gtest.
#pragma once

#include <malloc.h>

#include <fstream>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace retort::testing {

constexpr int64_t kMiB = 1 << 20;

// A sanitizer keeps freed memory back, and its shadow is resident too.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
// A field of /proc/self/status, in bytes; -1 where there is none.
inline int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) {
      std::istringstream words(line.substr(key.size() + 1));
      int64_t kilobytes = 0;
      words >> kilobytes;
      return kilobytes * 1024;
    }
  return -1;
}

inline int64_t resident_bytes() { return status_bytes("VmRSS"); }

// False where the kernel has no such file or keeps it from us (some containers).
inline bool reset_peak() {
  std::ofstream file("/proc/self/clear_refs");
  return bool(file << "5" << std::flush);
}

// Peak growth during `work`.
inline int64_t peak_growth(const std::function<void()>& work) {
  malloc_trim(0);  // pages that came before would hide growth
  if (!reset_peak()) throw std::runtime_error("/proc/self/clear_refs cannot be written");
  const int64_t before = resident_bytes();
  work();
  return status_bytes("VmHWM") - before;
}

}  // namespace retort::testing

// Skips aloud where the count of pages says nothing about the program.
#define RETORT_NEEDS_COUNTED_MEMORY()                                                                  \
  if (::retort::testing::kSanitized) GTEST_SKIP() << "resident memory under a sanitizer says nothing"; \
  if (!::retort::testing::reset_peak()) GTEST_SKIP() << "/proc/self/clear_refs cannot be written"
