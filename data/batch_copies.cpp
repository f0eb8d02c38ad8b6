#include "data/batch_copies.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "core/error.h"
#include "data/on_device.h"

namespace retort::data {
void BatchCopies::send(const std::vector<Batch>& batches) {
  sent_.clear();
  if (device_.is_cpu()) {
    for (const Batch& batch : batches) sent_.push_back({batch, {}});
    return;
  }
  if (!stream_) stream_ = c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_);
  const c10::StreamGuard in(*stream_);
  for (const Batch& batch : batches) {
    sent_.push_back({on_device(batch, device_), c10::Event(device_.type())});
    Sent& sent = sent_.back();
    sent.arrived->record(*stream_);
  }
}

Batch BatchCopies::take(size_t g) {
  RETORT_ASSERT(g < sent_.size());
  Sent& sent = sent_[g];
  if (!sent.arrived) return sent.batch;
  const c10::Stream here = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  sent.arrived->block(here);
  for (at::Tensor* x : read_by_models(sent.batch))
    if (x->defined()) x->record_stream(here);
  return sent.batch;
}

}  // namespace retort::data
