// The documents of a block of tokens as attention takes them on the model's device: of numbers that the host has, with
// their lengths, which flash kernels ask for and a device could not tell without a wait. Sent from pinned memory, in the
// current stream.
#pragma once

#include <ATen/ATen.h>

#include "kernels/attention.h"

namespace retort::models {

// document_BT as in models/model.h; undefined: nothing is masked. Throws ShapeError.
kernels::AttentionMask document_mask(const at::Tensor& document_BT, const at::Device& device);

}  // namespace retort::models
