#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

template <class T>
void rms_norm_row(const T* x, const float* w, T* y, float* rstd, int64_t width, float eps) {
  Vec squares[4] = {};
  sweep(width, [&](int64_t i, int k, auto part) {
    const Vec v = part.get(x + i);
    squares[k] += v * v;
  });
  const float r = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
  *rstd = r;
  sweep(width, [&](int64_t i, int, auto part) { part.put(y + i, part.get(x + i) * r * part.get(w + i)); });
}

// A row is added whole before it is read: it stays in the first cache, and is as rounded as the sum that others read.
template <class T>
void add_row(const T* x, const T* y, T* added, int64_t width) {
  sweep(width, [&](int64_t i, int, auto part) { part.put(added + i, part.get(x + i) + part.get(y + i)); });
}

template <class T>
void rms_norm(const T* x, const T* residual, const float* w, T* added, T* y, float* rstd, int64_t rows,
              int64_t width, float eps) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * width;
    if (residual != nullptr) add_row(x + at, residual + at, added + at, width);
    rms_norm_row((residual != nullptr ? added : x) + at, w, y + at, rstd + row, width, eps);
  }
}

// With n = x rstd: dx = rstd (dy w - n mean(dy w n)), dw = sum over rows of dy n.
template <class T>
void rms_norm_backward(const T* dy, const T* x, const float* w, const float* rstd, const T* dsum, T* dx,
                       float* dw, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, dy += width, x += width, dx += width) {
    Vec products[4] = {};
    sweep(width, [&](int64_t i, int k, auto part) {
      products[k] += part.get(dy + i) * part.get(w + i) * part.get(x + i);
    });
    const float r = rstd[row];
    const float mean = sum(products) * r / static_cast<float>(width);
    sweep(width, [&](int64_t i, int, auto part) {
      const Vec g = part.get(dy + i), n = part.get(x + i) * r;
      part.put(dx + i, (g * part.get(w + i) - n * mean) * r);
      part.put(dw + i, part.get(dw + i) + g * n);
    });
    if (dsum != nullptr) add_row(dx, dsum + row * width, dx, width);
  }
}

// The mean in two steps, of x and of x less the first: that difference is exact near the mean, so a row far
// from zero keeps its variance. `near` fills the rest of a vector, which so adds nothing.
template <class T>
void layer_norm(const T* x, const float* w, const float* b, T* y, float* mean, float* rstd, int64_t rows,
                int64_t width, float eps) {
  const float share = 1.0f / static_cast<float>(width);
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    Vec values[4] = {}, rests[4] = {}, squares[4] = {};
    sweep(width, [&](int64_t i, int k, auto part) { values[k] += part.get(x + i); });
    const float near = sum(values) * share;
    sweep(width, [&](int64_t i, int k, auto part) {
      const Vec rest = part.get(x + i, near) - near;
      rests[k] += rest;
      squares[k] += rest * rest;
    });
    const float left = sum(rests) * share, m = near + left;
    const float variance = sum(squares) * share - left * left;
    const float r = 1.0f / __builtin_sqrtf((variance < 0.0f ? 0.0f : variance) + eps);  // a NaN stays
    mean[row] = m;
    rstd[row] = r;
    sweep(width, [&](int64_t i, int, auto part) {
      part.put(y + i, (part.get(x + i) - m) * r * part.get(w + i) + part.get(b + i));
    });
  }
}

// With n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)), dw = sum over rows of dy n,
// db of dy.
template <class T>
void layer_norm_backward(const T* dy, const T* x, const float* w, const float* mean, const float* rstd, T* dx,
                         float* dw, float* db, int64_t rows, int64_t width) {
  const float share = 1.0f / static_cast<float>(width);
  for (int64_t row = 0; row < rows; ++row, dy += width, x += width, dx += width) {
    const float m = mean[row], r = rstd[row];
    Vec gradients[4] = {}, products[4] = {};
    sweep(width, [&](int64_t i, int k, auto part) {
      const Vec g = part.get(dy + i) * part.get(w + i);
      gradients[k] += g;
      products[k] += g * (part.get(x + i, m) - m);
    });
    const float mean_g = sum(gradients) * share, mean_gn = sum(products) * share * r;
    sweep(width, [&](int64_t i, int, auto part) {
      const Vec g = part.get(dy + i), n = (part.get(x + i) - m) * r;
      part.put(dx + i, (g * part.get(w + i) - mean_g - n * mean_gn) * r);
      part.put(dw + i, part.get(dw + i) + g * n);
      part.put(db + i, part.get(db + i) + g);
    });
  }
}

}  // namespace

void add_norm(Table& table) {
  table.f32.rms_norm = rms_norm<float>;
  table.bf16.rms_norm = rms_norm<Bf16>;
  table.f32.rms_norm_backward = rms_norm_backward<float>;
  table.bf16.rms_norm_backward = rms_norm_backward<Bf16>;
  table.f32.layer_norm = layer_norm<float>;
  table.bf16.layer_norm = layer_norm<Bf16>;
  table.f32.layer_norm_backward = layer_norm_backward<float>;
  table.bf16.layer_norm_backward = layer_norm_backward<Bf16>;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
