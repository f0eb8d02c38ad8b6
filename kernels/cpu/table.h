// The hand-written CPU loops: plain pointers, no tensors, no threads. Their sources are compiled once for
// each instruction set (AVX2 with FMA, AVX-512) and collected in a Table; cpu_table() picks the best at run
// time, so one binary serves every machine. The wrappers in kernels/*.cpp check shapes, divide the work and
// call these. f32 and bf16 elements, all math in f32. Every loop adds in an order that depends on the table
// alone.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/gate.h"

namespace retort::kernels::cpu {

struct Bf16 {
  uint16_t bits;
};

// B batch, T queries that are the last of S keys, H query heads on G key heads of width K; all dense.
struct AttentionShape {
  int64_t B, T, S, H, G, K;
  int64_t window;  // 0: unlimited
  float scale;
  const int32_t* documents;  // [B, S] or null
};

enum class Divergence { kReverseKl, kJsd, kSkewForwardKl, kSkewReverseKl, kTotalVariation, kAdaptiveKl };

// Teacher's rows are dense; the student's, and the gradient's, are `student_stride` >= vocabulary apart.
struct DivergenceRows {
  Divergence kind = Divergence::kReverseKl;
  float mix = 0.0f, temperature = 1.0f, scale = 1.0f;  // mix: beta or alpha
  int64_t rows = 0, vocabulary = 0, student_stride = 0;
};

struct SparseRows {
  float temperature, scale;
  int64_t rows, vocabulary, stride, labels;  // labels of each row, padded with weight 0
};

constexpr int kThinRows = 8;

// c[i, j] = sum_p a[i, p] b[p, j]. a and b have neighbours of a row or of a column together in memory: one of their
// two strides is 1. Rows of c are dense.
struct ProductShape {
  int64_t rows, columns, depth;
  int64_t a_row, a_column, b_row, b_column, c_row;
};

// Loops over elements of type T (float or Bf16).
template <class T>
struct ElementLoops {
  // y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps); saves rstd, one a row. With a residual, added = x + residual
  // takes the place of x; both may be null.
  void (*rms_norm)(const T* x, const T* residual, const float* w, T* added, T* y, float* rstd, int64_t rows,
                   int64_t width, float eps);
  // Writes dx, adds these rows' part to dw. What else reaches x, dsum, is added to dx; it may be null.
  void (*rms_norm_backward)(const T* dy, const T* x, const float* w, const float* rstd, const T* dsum, T* dx,
                            float* dw, int64_t rows, int64_t width);
  // y = (x - mean) rstd w + b, rstd = 1 / sqrt(var + eps); saves mean and rstd, one each a row.
  void (*layer_norm)(const T* x, const float* w, const float* b, T* y, float* mean, float* rstd, int64_t rows,
                     int64_t width, float eps);
  // Writes dx, adds these rows' part to dw and db.
  void (*layer_norm_backward)(const T* dy, const T* x, const float* w, const float* mean, const float* rstd,
                              T* dx, float* dw, float* db, int64_t rows, int64_t width);
  // y = gate(a) u; u null: y = gate(a).
  void (*gate)(Gate gate, const T* a, const T* u, T* y, int64_t n);
  void (*gate_backward)(Gate gate, const T* dy, const T* a, const T* u, T* da, T* du, int64_t n);
  // Rotates pairs (i, i + half) of each head; sign -1 turns back. cos and sin are [positions, half].
  void (*rope)(const T* x, const float* cos, const float* sin, const int64_t* positions, T* y, int64_t tokens,
               int64_t heads, int64_t half, float sign);
  // loss[r] = -log softmax(z_r)[label_r]; with `gradient`, z becomes softmax - onehot.
  void (*cross_entropy)(T* z, const int64_t* labels, double* loss, int64_t rows, int64_t vocabulary,
                        bool gradient);
  // One query head of one batch row; lse [B, H, T] is what backward needs. `scratch`: attention_scratch
  // floats.
  void (*attention)(const AttentionShape& shape, const T* q, const T* k, const T* v, T* y, float* lse,
                    int64_t b, int64_t h, float* scratch);
  // One key head of one batch row, with all its query heads: writes their dq, and dk, dv.
  void (*attention_backward)(const AttentionShape& shape, const T* dy, const T* q, const T* k, const T* v,
                             const T* y, const float* lse, T* dq, T* dk, T* dv, int64_t b, int64_t g,
                             float* scratch);
  // y[r stride + c] = sum_i x[r depth + i] w[c depth + i] for 1 to kThinRows rows.
  void (*thin_product)(const float* x, const T* w, float* y, int64_t rows, int64_t depth, int64_t columns,
                       int64_t stride);
};

struct Table {
  const char* name;  // "avx2", "avx512"
  ElementLoops<float> f32;
  ElementLoops<Bf16> bf16;

  // loss[r] = -log softmax(z_r)[label_r]; adds scale (softmax - onehot) to `gradient` when it is not null.
  void (*cross_entropy_add)(const float* z, const int64_t* labels, double* loss, float* gradient, float scale,
                            int64_t rows, int64_t vocabulary);
  // The losses of kernels/row_losses.h, divergences.h and sparse_losses.h: loss[r] of each row; scale times
  // its gradient is added to `gradient` when that is not null. `scratch`: 2 * vocabulary floats. forward_kl
  // and logit_mse read no kind or mix, logit_mse no temperature.
  void (*forward_kl)(const DivergenceRows& rows, const float* student, const float* teacher, double* loss,
                     float* gradient, float* scratch);
  void (*divergence)(const DivergenceRows& rows, const float* student, const float* teacher, double* loss,
                     float* gradient, float* scratch);
  void (*logit_mse)(const DivergenceRows& rows, const float* student, const float* teacher, double* loss,
                    float* gradient, float* scratch);
  // `rest` may be null.
  void (*sparse_cross_entropy)(const SparseRows& rows, const float* student, const int64_t* ids,
                               const float* weights, const float* rest, double* loss, float* gradient,
                               float* scratch);

  // A block of a product of bf16 matrices, computed in f32: bias, one a column, may be null. Each sum runs over p in
  // order, in runs of a fixed length. `scratch`: bf16_product_scratch floats.
  void (*bf16_product)(const ProductShape& shape, const Bf16* a, const Bf16* b, const Bf16* bias, Bf16* c,
                       float* scratch);
  // Adds the sums to c.
  void (*bf16_product_added)(const ProductShape& shape, const Bf16* a, const Bf16* b, float* c,
                             float* scratch);
  int64_t (*bf16_product_scratch)(const ProductShape& shape);

  int64_t (*attention_scratch)(const AttentionShape& shape, bool backward);

  template <class T>
  const ElementLoops<T>& of() const {
    if constexpr (std::is_same_v<T, float>)
      return f32;
    else
      return bf16;
  }
};

const Table& cpu_table();                    // the best by cpu_features(); ConfigError without AVX2 and FMA
std::vector<const Table*> all_cpu_tables();  // every one that it runs, the best last

}  // namespace retort::kernels::cpu
