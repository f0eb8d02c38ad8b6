// The two mappings of the device's memory, and pools of it that belong to graphs.
#pragma once

#include <c10/core/Allocator.h>

#include <map>
#include <mutex>
#include <vector>

namespace retort::testing {

class Memory {
 public:
  static Memory& get();

  // What is freed of a pool's is the pool's again, until that is closed. It counts as the most that it has had at once, as if
  // blocks were cut to any size.
  class Pool {
   public:
    Pool() = default;
    ~Pool() { get().give_back(*this); }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    size_t bytes() const { return most; }

   private:
    friend class Memory;
    std::map<size_t, std::vector<void*>> spare;
    size_t in_use = 0, most = 0;
  };
  void* allocate(size_t bytes, Pool* pool = nullptr);  // an address for tensors
  void free(void* address);
  // What has an address: where it begins, and a number that nothing else has had.
  struct Block {
    const void* begin = nullptr;  // nullptr: nothing that is in use has it
    uint64_t number = 0;
    const Pool* pool = nullptr;
    bool operator==(const Block&) const = default;
  };
  Block block_of(const void* address);
  void poison(const Pool& pool);                      // all of it is NaN
  std::vector<const void*> in_use(const Pool& pool);  // where its blocks begin that are
  void* readable(const void* address) const;          // the same byte in the other mapping
  // No more than so many bytes beside those that are in use now; allocations beyond are refused as CUDA's are.
  void limit(size_t more);
  void unlimit() { limit(kBytes); }
  // The most that has been in use since, and what was before that is not counted.
  void begin_peak();
  size_t peak();
  struct Use {
    size_t now, peak, most;  // peak: since begin_peak(); most: that there may be
  };
  Use use();

  // While one lives, the addresses of tensors can be read and written.
  class Opened {
   public:
    Opened() { get().open(1); }
    ~Opened() { get().open(-1); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;
  };

 private:
  struct Entry {
    size_t size;
    uint64_t number;
    Pool* pool;
    bool in_use;
  };
  Memory();
  void open(int more);
  void give_back(Pool& pool);
  void* take(size_t size);
  void count(size_t size);

  static constexpr size_t kBytes = size_t{4} << 30, kUnit = 512;
  std::mutex mutex_;
  char *closed_, *readable_;
  size_t used_ = 0, in_use_ = 0, most_ = kBytes;
  size_t before_peak_ = 0, peak_ = 0;
  int opened_ = 0;
  uint64_t numbers_ = 0;
  std::map<const char*, Entry> entries_;        // in use, or of a pool
  std::map<size_t, std::vector<void*>> spare_;  // by size
};

}  // namespace retort::testing
