// From chunks of logit rows to the CPU's row loops: which tensors they take, how rows are divided over
// threads, and the sum over rows, in f64 and in order on any number of threads.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <iterator>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "kernels/cpu/elements.h"
#include "kernels/cuda_ops.h"
#include "kernels/linear_loss.h"

namespace retort::kernels {

// Rows may lie further apart than their length.
inline bool has_dense_rows(const at::Tensor& x_CV) { return x_CV.size(1) <= 1 || x_CV.stride(1) == 1; }

inline bool has_row_loops(const at::Tensor& x_CV) {
  return x_CV.is_cpu() && x_CV.scalar_type() == at::kFloat && has_dense_rows(x_CV);
}

// Calls row_loop(first row, end, losses) over the rows in parallel; the losses, f64.
template <class RowLoop>
at::Tensor each_row(int64_t rows, int64_t vocabulary, RowLoop row_loop) {
  const at::Tensor losses_C = at::empty({rows}, at::kDouble);
  double* const losses = losses_C.mutable_data_ptr<double>();
  at::parallel_for(0, rows, cpu::grain(vocabulary),
                   [&](int64_t begin, int64_t end) { row_loop(begin, end, losses + begin); });
  return losses_C;
}

// Of f64 losses on the CPU one after another; elsewhere in the device's own order.
inline at::Tensor sum_in_order(const at::Tensor& losses_C) {
  if (!losses_C.is_cpu()) return losses_C.sum();
  const double* const losses = losses_C.const_data_ptr<double>();
  return at::scalar_tensor(std::accumulate(losses, losses + losses_C.numel(), 0.0), at::kDouble);
}

template <class RowLoop>
at::Tensor sum_rows(int64_t rows, int64_t vocabulary, RowLoop row_loop) {
  return sum_in_order(each_row(rows, vocabulary, row_loop));
}

inline const float* read_row(const at::Tensor& x_CV, int64_t row) {
  return x_CV.const_data_ptr<float>() + row * x_CV.stride(0);
}
// Null for an undefined gradient.
inline float* write_row(const at::Tensor& x_CV, int64_t row) {
  return x_CV.defined() ? x_CV.mutable_data_ptr<float>() + row * x_CV.stride(0) : nullptr;
}

// Whether a loss of the student's rows against the teacher's has loops for these.
inline bool has_loops(const LogitRows& rows, const at::Tensor& gradient_CV) {
  return has_row_loops(rows.student_CV) && has_row_loops(rows.teacher_CV) &&
         rows.teacher_CV.is_contiguous() &&
         (!gradient_CV.defined() || gradient_CV.strides() == rows.student_CV.strides());
}

// The kernels for a chunk of rows on a device, f32; nullptr: none. They leave rows of ignored labels out themselves.
inline const cuda::Ops* device_rows(const LogitRows& rows) {
  const auto fit = [](const at::Tensor& x_CV) {
    return x_CV.scalar_type() == at::kFloat && has_dense_rows(x_CV);
  };
  const bool both = fit(rows.student_CV) && (!rows.teacher_CV.defined() || fit(rows.teacher_CV));
  return both ? cuda::ops_for(rows.student_CV) : nullptr;
}

// As a recipe has it.
constexpr const char* name_of(cuda::RowLossKind kind) {
  constexpr const char* kNames[] = {"cross_entropy",   "forward_kl",      "reverse_kl",      "jsd",
                                    "skew_forward_kl", "skew_reverse_kl", "total_variation", "adaptive_kl",
                                    "logit_mse",       "labels"};
  static_assert(std::size(kNames) == static_cast<size_t>(cuda::RowLossKind::kLabels) + 1);
  return kNames[static_cast<size_t>(kind)];
}

// A loss as a device's kernels are told of it.
inline cuda::RowLossTerm device_term(const RowLoss::Kernel& kernel, double weight, const LogitRows& rows) {
  cuda::RowLossTerm out{kernel.kind, weight, kernel.temperature, kernel.mix};
  if (kernel.labels_of) {
    const SparseLabels labels = kernel.labels_of(rows);
    out.sparse = {labels.ids_NK.contiguous(), labels.weights_NK.to(at::kFloat).contiguous(),
                  labels.rest_N.defined() ? labels.rest_N.to(at::kFloat).contiguous() : at::Tensor()};
  } else {
    check(rows.teacher_CV.defined() || kernel.kind == cuda::RowLossKind::kCrossEntropy,
          "[linear_distill] {} needs a teacher's logits, got none", name_of(kernel.kind));
  }
  return out;
}

// The sum of its rows, where device_rows(); the gradient is added.
inline at::Tensor device_sum(const RowLoss::Kernel& kernel, const LogitRows& rows, double scale,
                             const at::Tensor& gradient_CV) {
  const at::Tensor& z = rows.student_CV;
  return device_rows(rows)
      ->add_row_losses(z, rows.teacher_CV, rows.common(z).size(1), rows.labels_C.contiguous(),
                       {device_term(kernel, scale, rows)}, gradient_CV)
      .sum();
}

// The sum of a loop of kernels/cpu/table.h that compares the student's first U columns with the teacher's. Of
// `shape` the sizes are filled in here.
template <class Loop>
at::Tensor sum_divergence(Loop loop, cpu::DivergenceRows shape, const LogitRows& rows,
                          const at::Tensor& gradient_CV) {
  shape.vocabulary = rows.teacher_CV.size(1);
  shape.student_stride = rows.student_CV.stride(0);
  return sum_rows(rows.student_CV.size(0), shape.vocabulary, [&](int64_t begin, int64_t end, double* losses) {
    std::vector<float> scratch(static_cast<size_t>(2 * shape.vocabulary));
    cpu::DivergenceRows part = shape;
    part.rows = end - begin;
    loop(part, read_row(rows.student_CV, begin), read_row(rows.teacher_CV, begin), losses,
         write_row(gradient_CV, begin), scratch.data());
  });
}

}  // namespace retort::kernels
