// The shared memory of one block at a time. Every variable lies between bands that nothing may touch: ASan
// reports an access to them, and without it a band that was written is found at the block's end. A block
// finds its variables filled with 0xff, a NaN, as no kernel may count on what a device's memory holds.
#pragma once

#include <cstddef>
#include <string>

namespace retort::emulation {

class SharedMemory {
 public:
  static constexpr size_t kMost = 227 << 10;  // bytes of a block on Hopper and Blackwell; Ampere has 163 KB
  static constexpr size_t kUnasked = 48 << 10;

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // A block of a kernel that has asked for more than kUnasked, or not.
  void begin_block(size_t dynamic_bytes, bool asked);
  void* dynamic() const { return memory_; }
  // Null when the block has no room left for it.
  void* variable(const void* key, size_t bytes, size_t alignment, const char* name);
  std::string check_bands() const;  // which variable was written past its end, or ""

 private:
  struct Variable {
    const void* key;
    size_t begin, bytes;
    const char* name;
  };
  static constexpr int kVariables = 64;
  char* place(const void* key, size_t bytes, size_t alignment, const char* name);

  char* memory_;
  size_t used_ = 0, total_ = 0;  // with the bands; without
  size_t most_ = kUnasked;
  Variable variables_[kVariables];
  int count_ = 0;
};

}  // namespace retort::emulation
