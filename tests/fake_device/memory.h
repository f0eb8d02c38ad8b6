// The two mappings of the device's memory.
#pragma once

#include <c10/core/Allocator.h>

#include <map>
#include <mutex>
#include <vector>

namespace retort::testing {

class Memory {
 public:
  static Memory& get();

  void* allocate(size_t bytes);  // an address for tensors
  void free(void* address);
  void* readable(const void* address) const;  // the same byte in the other mapping
  // No more than so many bytes beside those that are in use now; allocations beyond are refused as CUDA's are.
  void limit(size_t more);
  void unlimit() { limit(kBytes); }

  // While one lives, the addresses of tensors can be read and written.
  class Opened {
   public:
    Opened() { get().open(1); }
    ~Opened() { get().open(-1); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;
  };

 private:
  Memory();
  void open(int more);

  static constexpr size_t kBytes = size_t{4} << 30, kUnit = 512;
  std::mutex mutex_;
  char *closed_, *readable_;
  size_t used_ = 0, in_use_ = 0, most_ = kBytes;
  int opened_ = 0;
  std::map<void*, size_t> sizes_;
  std::map<size_t, std::vector<void*>> spare_;  // by size
};

}  // namespace retort::testing
