// A group for tensors on devices, over a wire that moves bytes between them: NCCL's. A collective is one or two rounds of sends
// and receives, and sums are added on the device in the order of comm/tree_sum.h, so that the bits are those of every
// other back end. It runs on a stream of its own, after what was enqueued before it; Pending::wait() makes the caller's
// stream wait, not the host.
//
// What ranks call is compared over the host's group at the same time, whose watchdog names who is missing; Pending::wait() lasts until
// all have called. Tensors in host memory and barriers go to that group alone.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Stream.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "comm/launch_watch.h"
#include "comm/leaf_sum.h"

namespace retort::comm {

// Between the devices of all ranks of a group, watched by comm/launch_watch.h. One thread calls it at a time.
class DeviceWire : public LaunchWatch::Library {
 public:
  virtual std::string name() const = 0;
  virtual void join() {}   // the first call
  virtual void leave() {}  // the last, unless it was aborted
  // In the stream: send[r] goes to rank r and receive[r] comes from there, all at once; undefined: no message. All are
  // contiguous, and none is this rank's own. CommError where it cannot be enqueued.
  virtual void trade(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive,
                     const c10::Stream& stream) = 0;
};

// `host` outlives it, and has the ranks that the wire has. All tensors are on one device. `sum_of` adds what ranks have sent.
std::unique_ptr<Comm> make_device_comm(Comm& host, std::unique_ptr<DeviceWire> wire,
                                       LeafSum sum_of = sum_in_pairs, const CommOptions& options = {});

}  // namespace retort::comm
