// The micro-batches of a step on the device that trains: copied ahead from pinned memory, all of them when the step
// begins, in a stream of their own. The training stream waits for the batch that it takes, by an event, and the host for
// nothing. A batch's memory is kept until the streams that have taken it are through. On the CPU they are the batches
// themselves. One thread.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <optional>
#include <vector>

#include "data/batch_stream.h"

namespace retort::data {

class BatchCopies {
 public:
  explicit BatchCopies(const at::Device& device) : device_(device) {}
  // In the place of those before. The batches' own tensors may go.
  void send(const std::vector<Batch>& batches);
  // What on_device() (data/on_device.h) gives of batch g, for the current stream; any number of times.
  Batch take(size_t g);

 private:
  struct Sent {
    Batch batch;
    std::optional<c10::Event> arrived;  // of what travels
  };
  at::Device device_;
  std::optional<c10::Stream> stream_;
  std::vector<Sent> sent_;
};

}  // namespace retort::data
