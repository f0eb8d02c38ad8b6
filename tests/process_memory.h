// Pages that the process holds in memory, by the kernel's own count.
#pragma once

#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <functional>
#include <sstream>
#include <string>

namespace retort::testing {

constexpr int64_t kMiB = 1 << 20;

// A sanitizer keeps freed memory back, and its shadow is resident too.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#define RETORT_NEEDS_PLAIN_MALLOC() \
  if (::retort::testing::kSanitized) GTEST_SKIP() << "resident memory under a sanitizer says nothing"

// A field of /proc/self/status.
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

// Peak growth during `work`.
inline int64_t peak_growth(const std::function<void()>& work) {
  malloc_trim(0);  // pages that earlier tests left in the heap would hide growth
  std::ofstream("/proc/self/clear_refs") << "5";
  const int64_t before = resident_bytes();
  work();
  return status_bytes("VmHWM") - before;
}

}  // namespace retort::testing
