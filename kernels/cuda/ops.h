// The kernels of a table on tensors: no checks (the operation did them), dense tensors, f32 or bf16. Results are
// allocated beside their inputs, and kernels are enqueued on the current stream; nothing waits. device_ops()
// (kernels/cuda_ops.h) runs them on a GPU; tests run the same wrappers on CPU tensors with the emulated table.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda/table.h"
#include "kernels/fitted_values.h"
#include "kernels/learned_rounding.h"
#include "kernels/packed_codes.h"

namespace retort::kernels::cuda {

struct SparseSignal {
  at::Tensor ids_CK, weights_CK, rest_C;  // rest may be undefined
};
// One loss on rows of logits.
struct RowLossTerm {
  RowLossKind kind = RowLossKind::kCrossEntropy;
  double weight = 1.0, temperature = 1.0, mix = 0.0;
  SparseSignal sparse = {};  // of kLabels
};

class Ops {
 public:
  using Enqueue = void (*)(const at::Tensor& on, const std::function<void(Stream)>& kernels);
  Ops(const Table& table, Enqueue enqueue) : table_(table), enqueue_(enqueue) {}

  std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x_ND, const at::Tensor& w_D,
                                             double eps) const;  // y, rstd
  struct Added {
    at::Tensor sum_ND, y_ND, rstd_N;
  };
  Added add_rms_norm(const at::Tensor& x_ND, const at::Tensor& residual_ND, const at::Tensor& w_D,
                     double eps) const;
  // dx, dw f32. dsum: what else reaches x, as the sum's own gradient does; may be undefined.
  std::pair<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                      const at::Tensor& w_D, const at::Tensor& rstd_N,
                                                      const at::Tensor& dsum_ND = {}) const;
  std::pair<at::Tensor, at::Tensor> layer_norm(const at::Tensor& x_ND, const at::Tensor& w_D,
                                               const at::Tensor& b_D, double eps) const;  // y, moments [2, N]
  // dx, dw and db [2, D] f32.
  std::pair<at::Tensor, at::Tensor> layer_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                        const at::Tensor& w_D,
                                                        const at::Tensor& moments_2N) const;

  // kind(a) u; u undefined: no factor.
  at::Tensor gate(Gate kind, const at::Tensor& a, const at::Tensor& u) const;
  std::pair<at::Tensor, at::Tensor> gate_backward(Gate kind, const at::Tensor& dy, const at::Tensor& a,
                                                  const at::Tensor& u) const;

  // Both turned, in one launch; tokens may be any distance apart. cos and sin [positions, K/2]; sign -1 turns back.
  std::pair<at::Tensor, at::Tensor> rope(const at::Tensor& q_NHK, const at::Tensor& k_NGK,
                                         const at::Tensor& cos_PK, const at::Tensor& sin_PK,
                                         const at::Tensor& positions_N, double sign) const;

  // The loss of each row, f32 [terms, C], unweighted: of cross-entropy once, and of up to kRowTerms others. With
  // `gradient`, their weighted sum's takes the place of student_CV. labels_C may be undefined where there is no
  // cross-entropy; -100 leaves a row out. The others compare the first `common` columns; teacher_CU, of the student's
  // dtype, has as many, and is undefined where all are on labels.
  at::Tensor row_losses(const at::Tensor& student_CV, const at::Tensor& teacher_CU, int64_t common,
                        const at::Tensor& labels_C, const std::vector<RowLossTerm>& terms,
                        bool gradient) const;
  // The same for logits that stay: the gradient is added to gradient_CV, where that is defined.
  at::Tensor add_row_losses(const at::Tensor& student_CV, const at::Tensor& teacher_CU, int64_t common,
                            const at::Tensor& labels_C, const std::vector<RowLossTerm>& terms,
                            const at::Tensor& gradient_CV) const;
  at::Tensor sum_parts(const at::Tensor& parts_PD) const;
  // f32, of up to kMostLeaves dense ones of a shape and dtype, in the order of comm/tree_sum.h. It lies in the first one
  // where that is f32.
  at::Tensor tree_sum(const std::vector<at::Tensor>& leaves) const;
  // Sums of squares of f32 gradients, f64: of each, its chunks of kAdamChunk elements.
  at::Tensor squares(const std::vector<at::Tensor>& gradients) const;
  // The verdict (f64 [3]: table.h) on pieces, so many of each block, and on losses_L, f64.
  at::Tensor judge(const at::Tensor& pieces, const std::vector<int64_t>& of_block, const at::Tensor& losses_L,
                   double clip) const;
  struct AdamParameter {
    at::Tensor master, m, v, gradient;    // f32, dense, one size
    at::Tensor working;                   // bf16, or undefined
    float keep = 1.0f;                    // 1 - lr * decay
    std::optional<FittedGrid> grid = {};  // of the working copy, f32 or bf16, then; its scales are of groups
  };
  // One launch for all, and one a grid. verdict: f64 [3], there.
  void adamw(const std::vector<AdamParameter>& parameters, const AdamRates& rates,
             const at::Tensor& verdict) const;
  // dw_VD f32 += the rows of dy_ND by their ids.
  void embedding_backward(const at::Tensor& dy_ND, const at::Tensor& ids_N, const at::Tensor& dw_VD) const;

  // Writes the values of x, f32, on a grid into y, f32 or bf16: with scales that it finds, or rows under given ones.
  void fake_quantize(const ScaleFit& fit, const Rounding& rounding, const at::Tensor& x,
                     const at::Tensor& y) const;
  void fake_quantize_rows(const Rounding& rounding, const at::Tensor& x, const at::Tensor& scales,
                          const at::Tensor& y) const;
  at::Tensor row_scales(Fit fit, const at::Tensor& x) const;  // [rows, 1]
  at::Tensor learned_scales(const at::Tensor& theta) const;   // of theta's shape
  // kernels/learned_rounding.h
  at::Tensor round_backward(const at::Tensor& x, const at::Tensor& scales, const at::Tensor& gradient,
                            const LearnedRounding& rule, const at::Tensor& out) const;

  void unpack(const PackedCodes& packed, const at::Tensor& values) const;  // kernels/packed_codes.h

  const Table& table() const { return table_; }
  void enqueue(const at::Tensor& on, const std::function<void(Stream)>& kernels) const {
    enqueue_(on, kernels);
  }

 private:
  const Table& table_;
  Enqueue enqueue_;
};

}  // namespace retort::kernels::cuda
