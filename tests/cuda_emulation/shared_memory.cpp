// Compiled without instrumentation and without calls of memset, which sanitizers intercept.
#include "tests/cuda_emulation/shared_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>

#if RETORT_EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace retort::emulation {

namespace {

constexpr size_t kBand = 64, kArena = SharedMemory::kMost + 64 * 2 * kBand;
constexpr char kInBand = static_cast<char>(0xa5), kUnknown = static_cast<char>(0xff);

void fill(char* p, char value, size_t bytes) {
  for (volatile char* q = p; q != p + bytes; ++q) *q = value;
}

void forbid(const char* p, size_t bytes) {
#if RETORT_EMULATION_ASAN
  __asan_poison_memory_region(p, bytes);
#else
  (void)p, (void)bytes;
#endif
}
void allow(const char* p, size_t bytes) {
#if RETORT_EMULATION_ASAN
  __asan_unpoison_memory_region(p, bytes);
#else
  (void)p, (void)bytes;
#endif
}

size_t up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

SharedMemory::SharedMemory() {
  void* memory = mmap(nullptr, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
  memory_ = static_cast<char*>(memory);
}

SharedMemory::~SharedMemory() {
  allow(memory_, kArena);
  munmap(memory_, kArena);
}

void SharedMemory::begin_block(size_t dynamic_bytes, bool asked) {
  forbid(memory_, kArena);
  used_ = total_ = 0;
  count_ = 0;
  most_ = asked ? kMost : kUnasked;
  place(nullptr, dynamic_bytes, 16, "dynamic shared memory");
}

char* SharedMemory::place(const void* key, size_t bytes, size_t alignment, const char* name) {
  const size_t begin = up(used_, alignment < 16 ? 16 : alignment), end = up(begin + bytes, 16) + kBand;
  total_ += bytes;
  if (total_ > most_ || end > kArena || count_ == kVariables) return nullptr;
  fill(memory_ + begin, kUnknown, bytes);
  fill(memory_ + begin + bytes, kInBand, end - begin - bytes);
  allow(memory_ + begin, bytes);
  used_ = end;
  variables_[count_++] = {key, begin, bytes, name};
  return memory_ + begin;
}

void* SharedMemory::variable(const void* key, size_t bytes, size_t alignment, const char* name) {
  for (int i = 1; i < count_; ++i)
    if (variables_[i].key == key) return memory_ + variables_[i].begin;
  return place(key, bytes, alignment, name);
}

std::string SharedMemory::check_bands() const {
  for (int i = 0; i < count_; ++i) {
    const Variable& v = variables_[i];
    const size_t next = i + 1 < count_ ? variables_[i + 1].begin : used_;
    for (size_t at = v.begin + v.bytes; at < next && at < v.begin + v.bytes + kBand; ++at)
      if (memory_[at] != kInBand) return v.name;
  }
  return "";
}

}  // namespace retort::emulation
