// The values of a grid whose scales follow from the values themselves (scale_fit.h), on a device that has kernels
// (cuda_ops.h): the bits that quantize/grid.h finds on the CPU, and nothing of it is read by the host.
#pragma once

#include <ATen/ATen.h>

#include "kernels/block_codes.h"
#include "kernels/scale_fit.h"

namespace retort::kernels {

struct FittedGrid {
  ScaleFit fit;
  Rounding rounding;
};

// Writes the values of x [rows, row], f32, into `values`, dense, of x's shape, f32 or bf16 (rounded once more). A row is a
// multiple of the group. ShapeError for tensors on the CPU, or elsewhere without kernels.
void round_fitted(const at::Tensor& x, const ScaleFit& fit, const Rounding& rounding,
                  const at::Tensor& values);

}  // namespace retort::kernels
