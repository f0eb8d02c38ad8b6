#include "models/document_mask.h"

namespace retort::models {

kernels::AttentionMask document_mask(const at::Tensor& document_BT, const at::Device& device) {
  if (!document_BT.defined() || !document_BT.is_cpu() || device.is_cpu()) return {.document_BS = document_BT};
  const auto send = [&](const at::Tensor& x) {
    return x.contiguous().pin_memory().to(device, /*non_blocking=*/true);
  };
  kernels::AttentionMask out{.document_BS = send(document_BT), .lengths = document_lengths(document_BT)};
  out.lengths.cumulative = send(out.lengths.cumulative);
  return out;
}

}  // namespace retort::models
