// The CUDA kernels as a table of functions of raw device pointers, sizes and a stream, so that a .cu file
// includes no LibTorch header and the wrappers (kernels/cuda/ops.h) need no nvcc. The same sources make two
// tables: `device`'s by nvcc, `emulated`'s by g++ (docs/cuda.md). They only enqueue; nothing waits and
// nothing is allocated. f32 or bf16 elements (`Element`), all math in f32. Every sum has one order, which
// depends on shapes and alignment alone: no atomics. Tensors are dense unless a stride is named.
// device::table() has not yet run on a device.
#pragma once

#include <cstdint>

#include "kernels/gate.h"
#include "kernels/packed_form.h"
#include "kernels/scale_fit.h"

struct CUstream_st;

namespace retort::kernels::cuda {

using Stream = CUstream_st*;

enum class Element { kF32, kBf16 };

// --- rms_norm.cu, layer_norm.cu. Partial sums of the parameters' gradients are added up by sum_parts.

struct NormRows {
  int64_t rows, width;
  float eps = 0.0f;
};
struct NormParts {  // p holds the rows p, p + parts, ...
  float* gradients;
  int64_t parts;
};

// --- rope.cu

// Of each token `heads` times 2 half elements, tokens `stride` apart in x and dense in y, which is none of the inputs.
struct RopeHeads {
  const void* x;
  void* y;
  int64_t heads, stride;
};

// --- row_losses.cu, divergences.cu, sparse_losses.cu, row_pairs.cu

enum class RowLossKind {
  kCrossEntropy,
  kForwardKl,
  kReverseKl,
  kJsd,
  kSkewForwardKl,
  kSkewReverseKl,
  kTotalVariation,
  kAdaptiveKl,
  kLogitMse,
  kLabels
};

// Few labels a row instead of a teacher's logits: kernels/sparse_losses.h.
struct SparseRows {
  const int64_t* ids = nullptr;    // [rows, labels]
  const float* weights = nullptr;  // the same; 0 where padded
  const float* rest = nullptr;     // [rows], or null
  int64_t labels = 0;
};

// One loss but cross-entropy.
struct RowTerm {
  RowLossKind kind = RowLossKind::kForwardKl;
  float weight = 1.0f, temperature = 1.0f, mix = 0.0f;
  SparseRows sparse = {};    // of kLabels
  float* loss_of = nullptr;  // [rows] unweighted
};
constexpr int kRowTerms = 2;

// The losses of kernels/row_losses.h, divergences.h and sparse_losses.h on rows of logits: up to kRowTerms of them, and
// cross-entropy, which must be there where nothing else is. A label of -100 leaves its row out: losses and gradient are 0.
// Any other outside [0, vocabulary) gives NaN.
struct RowLosses {
  RowTerm terms[kRowTerms] = {};
  int count = 0;                                   // of them
  float cross_entropy = 0.0f;                      // its weight
  int64_t rows = 0, vocabulary = 0, common = 0;    // common <= vocabulary: the columns that terms compare
  int64_t student_stride = 0, teacher_stride = 0;  // from row to row, in elements
  void* student = nullptr;
  const void* teacher = nullptr;      // of the student's element; null where no term reads it
  const int64_t* labels = nullptr;    // null: no row is left out, and there is no cross-entropy
  float* cross_entropy_of = nullptr;  // [rows] unweighted; null: not computed
  bool gradient = false;              // the weighted sum's takes the student's place
};

// --- adamw.cu

// One parameter. A chunk is kAdamChunk elements from `offset` on, or what is left of them.
struct AdamTensor {
  float *master, *m, *v;
  const float* gradient;
  void* working;  // bf16, or null: none is written. On a grid: of the launch's element
  int64_t count;
  float keep;  // 1 - lr * decay
};
struct AdamChunk {
  int64_t tensor, offset;
};
constexpr int64_t kAdamChunk = 1 << 12;

// The constants of a step, each rounded once from double on the host.
struct AdamRates {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float step;  // lr / (1 - b1^t)
  float root;  // 1 / sqrt(1 - b2^t)
  float eps;
};
// kernels/gradient_norm.h has the meaning of each.
struct Verdict {
  double norm, factor, go;
};

// --- sums.cu

// What is added up, element by element, in the order of comm/tree_sum.h.
constexpr int kMostLeaves = 127;
struct TreeLeaves {
  const void* at[kMostLeaves];
  int count = 0;
};

// --- fake_quantize.cu, row_scales.cu, learned_rounding.cu

// kernels/block_codes.h has the meaning of each.
enum class Rule { kNearestEven, kNearestAway, kTruncate, kOdd, kSign, kFloat4, kFloat4Even, kFloat8 };
struct GridRule {
  Rule rule;
  int lowest, highest;
};
// A grid whose groups of consecutive values find their own scale: 32 of them, or 128 of kInteger.
struct GroupGrid {
  Fit fit;
  GridRule rule;
  float half_range;  // of kInteger
  int64_t group;
};
struct LearnedRule {  // kernels/learned_rounding.h
  GridRule grid;
  float low, high, follows;  // follows: 1 or 0
};

// --- packed_codes.cu

struct PackedBlocks {  // kernels/packed_codes.h
  PackedForm form;
  const void *codes, *scales;
  const float *groups, *sizes, *map;
  float offset;
};

struct Table {
  const char* name;  // "device", "emulated"

  // y = n(h) w with h = x + residual, written to `sum`; residual and sum null: h = x. Saves rstd [rows].
  void (*rms_norm)(Element element, NormRows shape, const void* x, const void* residual, const float* w,
                   void* sum, void* y, float* rstd, Stream stream);
  // dx, to which dsum (what else reaches `sum`; may be null) is added, and parts of dw [parts, width].
  void (*rms_norm_backward)(Element element, NormRows shape, const void* dy, const void* x, const float* w,
                            const float* rstd, const void* dsum, void* dx, NormParts dw, Stream stream);
  // Saves moments [2, rows]: mean and rstd.
  void (*layer_norm)(Element element, NormRows shape, const void* x, const float* w, const float* b, void* y,
                     float* moments, Stream stream);
  // dx, and parts of dw and db [parts, 2, width].
  void (*layer_norm_backward)(Element element, NormRows shape, const void* dy, const void* x, const float* w,
                              const float* moments, void* dx, NormParts dwb, Stream stream);

  // y = gate(a) u; u null: y = gate(a).
  void (*gate)(Gate gate, Element element, const void* a, const void* u, void* y, int64_t n, Stream stream);
  void (*gate_backward)(Gate gate, Element element, const void* dy, const void* a, const void* u, void* da,
                        void* du, int64_t n, Stream stream);

  // Rotates the pairs (i, i + half) of each head of q and k. cos and sin [positions, half]; sign -1 turns back.
  void (*rope)(Element element, const RopeHeads& q, const RopeHeads& k, const float* cos, const float* sin,
               const int64_t* positions, int64_t tokens, int64_t half, float sign, Stream stream);

  void (*row_losses)(Element element, const RowLosses& losses, Stream stream);

  // sum[i] = parts[0][i] + parts[1][i] + ..., each column in one order.
  void (*sum_parts)(const float* parts, float* sum, int64_t count, int64_t width, Stream stream);
  // sum[i] = leaf 0's [i] + ...; it may be one of the leaves.
  void (*tree_sum)(Element element, const TreeLeaves& leaves, float* sum, int64_t n, Stream stream);

  // dw[id] += the rows of dy whose token is id, in their order. ids [n] ascending and order [n]: a stable
  // sort of the tokens' ids. The work of long runs of one id is shared by warps.
  void (*embedding_backward)(Element element, const void* dy, const int64_t* ids, const int64_t* order,
                             float* dw, int64_t n, int64_t width, Stream stream);

  // Sums of squares of the chunks' gradients, f64 [count], in the order of kernels/gradient_norm.h.
  void (*squares)(const AdamTensor* tensors, const AdamChunk* chunks, int64_t count, double* squares,
                  Stream stream);
  // The verdict on blocks whose pieces end at ends [blocks], and on `losses` numbers that are `stride` apart. sums
  // [blocks] is scratch.
  void (*judge)(const double* pieces, const int64_t* ends, int64_t blocks, double* sums, const double* losses,
                int64_t count, int64_t stride, double clip, Verdict* verdict, Stream stream);
  // The update of every chunk, unless the verdict is against it.
  void (*adamw)(const AdamTensor* tensors, const AdamChunk* chunks, int64_t count, const AdamRates& rates,
                const Verdict* verdict, Stream stream);
  // The same where every tensor's working copy is what fake_quantize_groups makes of its master. count a multiple of the
  // group; all but the gradient begin at 16 bytes.
  void (*adamw_on_grid)(const GroupGrid& grid, Element element, const AdamTensor* tensors,
                        const AdamChunk* chunks, int64_t count, const AdamRates& rates,
                        const Verdict* verdict, Stream stream);

  // y (f32 or bf16 after `element`) = the value of x [n] on the grid. n a multiple of the group.
  void (*fake_quantize_groups)(const GroupGrid& grid, Element element, const float* x, void* y, int64_t n,
                               Stream stream);
  // The same under given scales, one a row, whose divisors are the same numbers.
  void (*fake_quantize_rows)(GridRule rule, Element element, const float* x, const float* scales, void* y,
                             int64_t rows, int64_t width, Stream stream);
  // The same under those that rows find: kInteger and kFloat8.
  void (*fake_quantize_fitted_rows)(Fit fit, GridRule rule, float half_range, Element element, const float* x,
                                    void* y, int64_t rows, int64_t width, Stream stream);
  // The scales of x's rows [rows]: kMean, or kMeanOfAll, which is the same for all.
  void (*row_scales)(Fit fit, const float* x, float* scales, int64_t rows, int64_t width, Stream stream);
  // f16(exp(theta)), no less than 2^-14.
  void (*learned_scales)(const float* theta, float* scales, int64_t n, Stream stream);
  // x's gradient, out, which may be `gradient`, and scale * the scale's of each row, f64.
  void (*round_backward)(const LearnedRule& rule, const float* x, const float* scales, const float* gradient,
                         float* out, double* sums, int64_t rows, int64_t width, Stream stream);
  // The values of codes. n a multiple of 32 but of kNf4.
  void (*unpack)(const PackedBlocks& packed, Element element, void* y, int64_t n, Stream stream);
};

namespace device {
const Table& table();
}
namespace emulated {
const Table& table();
}

}  // namespace retort::kernels::cuda
