// Where kernels can be run: emulated always, and on a device where there is one.
#pragma once

#include <functional>
#include <string>

#include "kernels/cuda/ops.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::testing {

// The kernels of a table applied to tensors on `device`; gives what they made.
using KernelRun = std::function<Tensors(const kernels::cuda::Ops& ops, const at::Device& device)>;

// Hands what `run` gives to `check`, once from each provider, on the host. Emulated kernels run under every order
// and must give the same bits. With $RETORT_ONLY_DEVICE (scripts/device_check.sh) they are left out: the device's alone, and
// a test skips where there is none.
void everywhere(const std::string& what, const KernelRun& run,
                const std::function<void(const Tensors&)>& check);

// A dense copy on `device` whose memory begins `offset` elements after a multiple of 16 bytes.
at::Tensor placed(const at::Tensor& x, const at::Device& device, int64_t offset = 0);

// got is no worse than `usual`, the plain version in the same dtype, twice over; see tests/kernels/gradcheck.h.
void expect_no_worse(const std::string& what, const Tensors& got, const Tensors& usual, const Tensors& exact,
                     double terms = 0.0);
// The same with the terms of each result.
void expect_no_worse(const std::string& what, const Tensors& got, const Tensors& usual, const Tensors& exact,
                     const std::vector<double>& terms);
// The same, usual and exact being `plain`'s value and gradients; got: ours, in that order. plain's gradients are
// those of sum(value * direction_of(value)).
void expect_no_worse(const std::string& what, const Tensors& got, const Operation& plain,
                     const Tensors& inputs, at::ScalarType dtype, double terms = 0.0);
at::Tensor direction_of(at::IntArrayRef shape, at::ScalarType dtype);

}  // namespace retort::testing
