// Counts the bytes of tensors on the CPU, exactly: LibTorch's allocator with a running sum and its peak, of all threads and
// of those that ask for a count of their own. What was there before does not count; what outlives the counting is let
// go as ever. A block's context is its address, as raw_allocate() demands, by which products take memory on some machines.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

namespace retort::testing {

class CountedTensors {
  class Sum {
   public:
    void add(int64_t bytes) {
      const std::lock_guard lock(mutex_);
      now_ += bytes;
      peak_ = std::max(peak_, now_);
    }
    void begin() {
      const std::lock_guard lock(mutex_);
      peak_ = now_;
    }
    int64_t peak_bytes() const {
      const std::lock_guard lock(mutex_);
      return peak_;
    }

   private:
    mutable std::mutex mutex_;
    int64_t now_ = 0, peak_ = 0;
  };
  static inline thread_local std::shared_ptr<Sum> mine_ = nullptr;  // the thread has no count

 public:
  // Of the tensors that this thread makes while it lives, whoever lets them go. One a thread.
  class OfThread {
   public:
    OfThread() { mine_ = sum_; }
    ~OfThread() { mine_ = nullptr; }
    OfThread(const OfThread&) = delete;
    OfThread& operator=(const OfThread&) = delete;
    int64_t peak() const { return sum_->peak_bytes(); }
    void begin() { sum_->begin(); }  // the peak counts from here

   private:
    friend class CountedTensors;
    std::shared_ptr<Sum> sum_ = std::make_shared<Sum>();
  };

  CountedTensors() : before_(c10::GetAllocator(c10::DeviceType::CPU)), counting_(before_, all_) {
    c10::SetAllocator(c10::DeviceType::CPU, &counting_);
  }
  ~CountedTensors() { c10::SetAllocator(c10::DeviceType::CPU, before_); }
  CountedTensors(const CountedTensors&) = delete;
  CountedTensors& operator=(const CountedTensors&) = delete;

  int64_t peak() const { return all_->peak_bytes(); }

 private:
  struct Block {
    c10::DataPtr data;
    int64_t bytes;
    std::shared_ptr<Sum> all, part;
    void add(int64_t more) const {
      all->add(more);
      if (part) part->add(more);
    }
  };
  // By their addresses.
  struct Blocks {
    std::mutex mutex;
    std::map<void*, Block> blocks;
  };
  static Blocks& living() {
    static Blocks all;
    return all;
  }
  class Counting final : public c10::Allocator {
   public:
    Counting(c10::Allocator* inner, std::shared_ptr<Sum> all) : inner_(inner), all_(std::move(all)) {}
    c10::DataPtr allocate(size_t bytes) override {
      Block block{inner_->allocate(bytes), static_cast<int64_t>(bytes), all_, mine_};
      void* data = block.data.get();
      if (data == nullptr) return std::move(block.data);
      block.add(block.bytes);
      const std::lock_guard lock(living().mutex);
      living().blocks.emplace(data, std::move(block));
      return {data, data, release, c10::DeviceType::CPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return release; }
    void copy_data(void* to, const void* from, size_t bytes) const override {
      default_copy_data(to, from, bytes);
    }

   private:
    static void release(void* data) {
      const std::lock_guard lock(living().mutex);
      const auto block = living().blocks.extract(data);
      block.mapped().add(-block.mapped().bytes);
    }
    c10::Allocator* inner_;
    std::shared_ptr<Sum> all_;
  };

  std::shared_ptr<Sum> all_ = std::make_shared<Sum>();
  c10::Allocator* before_;
  Counting counting_;
};

}  // namespace retort::testing
