// Losses on rows of logits: by kernels, and by the plain versions of kernels/row_losses.h, divergences.h and
// sparse_losses.h in any dtype.
#pragma once

#include <string>
#include <vector>

#include "tests/cuda_emulation/providers.h"

namespace retort::testing {

using kernels::cuda::RowLossKind;
using kernels::cuda::RowLossTerm;
using RowTerms = std::vector<RowLossTerm>;

struct LogitProblem {
  at::Tensor student_NV, teacher_NU, labels_N;  // f64; some labels are -100
};
LogitProblem logit_problem(int64_t rows, int64_t vocabulary, int64_t common);

// k of `common` ids a row that differ, the last one padding; weights and rest f64, but such as f32 holds. With a rest
// all add up to 1.
kernels::cuda::SparseSignal sparse_signal(int64_t rows, int64_t common, int64_t k, bool rest,
                                          uint64_t seed = 3);

kernels::cuda::SparseSignal on_device(const kernels::cuda::SparseSignal& sparse,
                                      const at::Device& device);  // f32

// Each term's sum over all rows, and the gradient of their weighted sum.
Tensors plain_rows(const LogitProblem& problem, const RowTerms& terms, at::ScalarType dtype);

std::string name_of(const RowTerms& terms);

// Holds the kernel of `terms` on logits of `dtype` to the plain version in f64, without and with a gradient. Rows of
// label -100 are left out of the plain version, and must be zeros in ours.
void expect_rows(const LogitProblem& problem, const RowTerms& terms, at::ScalarType dtype);

}  // namespace retort::testing
