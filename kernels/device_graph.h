// Work of a device that is recorded once and repeated by one call: a CUDA graph (docs/cuda.md). It repeats what was
// enqueued, with the addresses and the numbers that it had then. Whose graphs a device takes is set as its kernels are
// (cuda_ops.h). Those of a GPU are compiled and have not run on one.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace retort::kernels {

class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  virtual void replay() = 0;           // enqueues it in the current stream
  virtual uint64_t bytes() const = 0;  // of memory that it holds, with that of its tensors
};

// Records what `work` enqueues, in a stream of its own; nothing of it runs before the first replay. The memory that it
// gets belongs to the graph and to those of its tensors that live on; what it reads besides must stay where it is. Throws what
// `work` throws, and where that waits for the device or has it read memory of the host's.
using CaptureGraph = std::unique_ptr<DeviceGraph> (*)(const at::Device& device,
                                                      const std::function<void()>& work);

void provide_graphs(at::DeviceType type, CaptureGraph capture);
CaptureGraph graphs_for(const at::Device& device);  // nullptr: it has none

}  // namespace retort::kernels
