// Codes (parameters.h) on a device whose kernels make their values there (kernels/packed_codes.h).
#pragma once

#include <memory>

#include "models/parameters.h"

namespace retort::models {

// The same codes there, one copy for all models that share them; those that cannot move as they are.
std::shared_ptr<const Codes> moved_codes(const std::shared_ptr<const Codes>& codes, const at::Device& device);

// Their values on a device, cast: made there by one kernel, or on the CPU and sent.
at::Tensor values_on(const Codes& codes, const at::Device& device, at::ScalarType dtype);

}  // namespace retort::models
