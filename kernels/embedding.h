// The gradient of a table whose rows were looked up: each id's row is the sum of its tokens' gradients, in their
// order. N tokens, D width, V rows.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

// f32 [V, D] from dy_ND, f32 or bf16, and ids_N (i64, any shape of N elements).
at::Tensor embedding_backward(const at::Tensor& dy_ND, const at::Tensor& ids_N, int64_t rows);

}  // namespace retort::kernels
