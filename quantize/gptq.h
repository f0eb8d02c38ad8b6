// GPTQ (Frantar et al. 2022, arXiv 2210.17323): rounds a matrix [O out, I in] column by column, and lets the columns that
// are still free make up for each one's error, so that tr((W - Q) H (W - Q)^T) stays small; H is the sum of x x^T over
// the inputs x that the matrix reads.
//
//   H += damping mean(diag H) I; an input that is always 0 gets H_ii = 1 and its column becomes 0
//   U  upper triangular, U^T U = H^-1
//   column i:  q = round(w_i),  e = (w_i - q) / U_ii,  w_j -= e U_ij for j > i
//
// With H a multiple of I the result is round to nearest, bit for bit. Deterministic at one thread count. Throws
// NonFiniteError where W or H holds no numbers.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "quantize/grid.h"

namespace retort::quantize {

struct GptqOptions {
  double damping = 0.01;  // a share of the mean of diag H
  bool act_order = false;
};

// `second_moment_II` is H, f64. `name` is for messages.
Quantized gptq(const std::string& name, const at::Tensor& weight_OI, const at::Tensor& second_moment_II,
               const Grid& grid, const GptqOptions& options);

// tr((W - Q) H (W - Q)^T) in f64: what GPTQ makes small.
double output_error(const at::Tensor& weight_OI, const at::Tensor& values_OI,
                    const at::Tensor& second_moment_II);

}  // namespace retort::quantize
