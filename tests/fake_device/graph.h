// Graphs of the fake device (kernels/device_graph.h): a stream's operators, copies and launches, kept with the addresses and
// the numbers of the host that they had, and done again in the same memory. It is as strict as CUDA, or stricter: while it is
// captured, kernels of ours do not run, what asks for the host or reads its memory throws, and so does a write to memory
// that is not the graph's own; what the graph's memory holds is lost (NaN) when capture ends; and a replay throws that
// reads memory which has been freed since. One thread at a time.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Stream.h>

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "kernels/device_graph.h"
#include "tests/fake_device/memory.h"

namespace retort::testing {

class Graph final : public kernels::DeviceGraph {
 public:
  static std::unique_ptr<kernels::DeviceGraph> capture(const at::Device& device,
                                                       const std::function<void()>& work);
  // Which captures the current stream of that device; nullptr: none.
  static Graph* under_way(c10::DeviceIndex device);
  void replay() override;
  uint64_t bytes() const override { return pool_.bytes(); }

  void add(std::function<void()> work) { work_.push_back(std::move(work)); }
  void uses(const void* address, bool write);  // by its work
  Memory::Pool& pool() { return pool_; }
  const c10::Stream& home() const { return home_; }  // in which capture() was called

 private:
  explicit Graph(const c10::Stream& home) : home_(home) {}
  c10::Stream home_;
  Memory::Pool pool_;
  std::vector<std::function<void()>> work_;
  std::map<uint64_t, const void*> outside_;  // what it reads and does not own, by the number of its block
};

}  // namespace retort::testing
