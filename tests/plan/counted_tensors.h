// Counts the bytes of tensors on the CPU, exactly: LibTorch's allocator with a running sum and its peak. What was there
// before does not count; what outlives the counting is let go as ever.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <memory>
#include <mutex>

namespace retort::testing {

class CountedTensors {
 public:
  CountedTensors() : before_(c10::GetAllocator(c10::DeviceType::CPU)), counting_(before_, sum_) {
    c10::SetAllocator(c10::DeviceType::CPU, &counting_);
  }
  ~CountedTensors() { c10::SetAllocator(c10::DeviceType::CPU, before_); }
  CountedTensors(const CountedTensors&) = delete;
  CountedTensors& operator=(const CountedTensors&) = delete;

  int64_t peak() const {
    const std::lock_guard lock(sum_->mutex);
    return sum_->peak;
  }

 private:
  struct Sum {
    std::mutex mutex;
    int64_t now = 0, peak = 0;
    void add(int64_t bytes) {
      const std::lock_guard lock(mutex);
      now += bytes;
      peak = std::max(peak, now);
    }
  };
  struct Block {
    c10::DataPtr data;
    int64_t bytes;
    std::shared_ptr<Sum> sum;
  };
  class Counting final : public c10::Allocator {
   public:
    Counting(c10::Allocator* inner, std::shared_ptr<Sum> sum) : inner_(inner), sum_(std::move(sum)) {}
    c10::DataPtr allocate(size_t bytes) override {
      auto block = std::make_unique<Block>(Block{inner_->allocate(bytes), static_cast<int64_t>(bytes), sum_});
      sum_->add(block->bytes);
      void* data = block->data.get();
      return {data, block.release(), release, c10::DeviceType::CPU};
    }
    void copy_data(void* to, const void* from, size_t bytes) const override {
      default_copy_data(to, from, bytes);
    }

   private:
    static void release(void* context) {
      const std::unique_ptr<Block> block(static_cast<Block*>(context));
      block->sum->add(-block->bytes);
    }
    c10::Allocator* inner_;
    std::shared_ptr<Sum> sum_;
  };

  std::shared_ptr<Sum> sum_ = std::make_shared<Sum>();
  c10::Allocator* before_;
  Counting counting_;
};

}  // namespace retort::testing
