// A device whose memory the host cannot read, for machines without a GPU: LibTorch's PrivateUse1. Its memory is one
// file of RAM that is mapped twice. Tensors have addresses in a mapping that nobody may access, so that code which reads a
// tensor's memory without asking where it is ends in a segmentation fault, with a stack. Operators of LibTorch run
// on the CPU's kernels, through the other mapping and in the tensor's own strides; the operations of kernels/ take the emulated
// CUDA kernels (tests/cuda_emulation), for which the first mapping is opened while they run.
// kFakeDevices of them, whose tensors do not mix; that streams wait for one another is held by streams.h. New memory is
// filled with NaN. Backward runs on a thread of its own, as on a GPU. Its graphs are graph.h's.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <string>

namespace retort::testing {

inline constexpr int kFakeDevices = 9;
at::Device fake_device(int index = 0);  // below kFakeDevices

// What has happened on the device.
struct Traffic {
  int64_t to_device = 0, to_host = 0;  // copies
  int64_t uploads_waited = 0;  // to_device for which CUDA makes the host wait, or may: from pageable memory
  int64_t uploads_ahead = 0;   // to_device from pinned memory in a stream beside the default one
  int64_t scalars = 0;         // .item() and the like
  int64_t shapes = 0;          // results whose shape the host must be told: nonzero
  std::map<int, int64_t> reads_of;           // of these three, by the device
  int64_t launches = 0;                      // of kernels of ours, without a replay's
  int64_t graphs = 0, replays = 0;           // that were captured, and of them
  std::map<std::string, int64_t> operators;  // that LibTorch's CPU kernels have done, by name

  int64_t host_reads() const { return to_host + scalars + shapes; }
};

void count_graph();
void count_replay();

// While one lives, what the thread does is not counted.
class Uncounted {
 public:
  Uncounted();
  ~Uncounted();
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;
};

// Since the object was made, of all threads.
class Watch {
 public:
  Watch();
  Traffic traffic() const;

 private:
  Traffic before_;
};

}  // namespace retort::testing
