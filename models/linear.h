// The one place where a weight multiplies an activation: y = x W^T + b in the weight's dtype. A low-rank
// adapter joins it without W + s B A being made, in f32 whatever the weight's dtype (Hu et al. 2021, arXiv
// 2106.09685; with magnitudes Liu et al. 2024, arXiv 2402.09353):
//
//   y = x W^T + s (x A^T) B^T + b;   y = g (x W^T + s (x A^T) B^T) + b,  g = m / |rows of W + s B A|
//
// and of an embedding E [V, D], whose lengths are the columns', as peft has them:
//
//   e(x) = E[x] + s B[x] A;   e(x) = g (E[x] + s B[x] A),  g = m / |columns of E + s B A|
//
// The lengths are constants to the backward pass. The caller's x is cast to the weight's dtype (a bf16 weight
// makes a bf16 product), and the result has it. Few rows without gradients, as in decoding, go to
// kernels/thin_product.h. Differentiable in x, W, A, B, m and b. The weight's observer gets x; then its input
// map, where it has one (an activation quantizer), replaces x. Of a frozen weight that is kept as codes
// (frozen_codes.h) the values are made for each product.
#pragma once

#include <ATen/ATen.h>

#include <initializer_list>
#include <vector>

#include "models/parameters.h"

namespace retort::models {

struct Linear {
  const Parameter* weight = nullptr;  // [out, in]
  const Parameter* bias = nullptr;    // [out] f32, or none
  const LowRank* adapter = nullptr;   // of this use (Parameters::adapter), or none

  at::Tensor operator()(const at::Tensor& x) const;  // [..., in] -> [..., out]
  at::ScalarType dtype() const { return weight->working.scalar_type(); }
  bool plain() const;  // nothing but weight and bias takes part

 private:
  at::Tensor product(const at::Tensor& x, const at::Tensor& b) const;  // x W^T + b
};

// Each of x: one node where all are plain (kernels::linear_products).
std::vector<at::Tensor> apply_all(const at::Tensor& x, std::initializer_list<const Linear*> linears);

// The tensors of an adapter as values; m may be undefined.
struct LowRankValues {
  at::Tensor a, b, m;
  double scale = 1.0;
  bool columns = false;  // lengths are the columns'
};
LowRankValues working_values(const LowRank& adapter);
// Whether the magnitudes of a use are of its weight's columns: where it is an embedding, and no head that is tied to one.
bool has_column_lengths(const Parameter& weight, std::string_view use);
// W with the adapter, f32: (m / N) (W + s B A), or W + s B A. Differentiable in all but N.
at::Tensor joined(const at::Tensor& weight, const LowRankValues& adapter);
// N: the lengths of the rows of W + s B A [out], or of its columns [in], f32, without making it. Not differentiable.
at::Tensor joined_lengths(const at::Tensor& weight, const LowRankValues& adapter);

// Rows of the weight as f32, with those of the adapter. The gradient is summed in f32 and in token order,
// then cast to the weight's dtype: in bf16 the sum of a frequent token would stop growing.
at::Tensor look_up(const Parameter& embedding, const at::Tensor& ids, const LowRank& adapter = {});
// What a head multiplies with: the working weight itself, or its dense sum with the adapter, in its dtype.
at::Tensor head_weight(const Parameter& head, const LowRank& adapter);

}  // namespace retort::models
