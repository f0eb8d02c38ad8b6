#include "models/document_mask.h"

#include "core/upload.h"

namespace retort::models {

kernels::AttentionMask document_mask(const at::Tensor& document_BT, const at::Device& device) {
  if (!document_BT.defined() || !document_BT.is_cpu() || device.is_cpu()) return {.document_BS = document_BT};
  kernels::AttentionMask out{.document_BS = upload(document_BT, device),
                             .lengths = document_lengths(document_BT)};
  out.lengths.cumulative = upload(out.lengths.cumulative, device);
  return out;
}

}  // namespace retort::models
