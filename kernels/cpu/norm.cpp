#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

template <class T>
void rms_norm(const T* x, const float* w, T* y, float* rstd, int64_t rows, int64_t width, float eps) {
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    Vec squares[4] = {};
    sweep(width, [&](int64_t i, int k, auto part) {
      const Vec v = part.get(x + i);
      squares[k] += v * v;
    });
    const float r = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
    rstd[row] = r;
    sweep(width, [&](int64_t i, int, auto part) { part.put(y + i, part.get(x + i) * r * part.get(w + i)); });
  }
}

// With n = x rstd: dx = rstd (dy w - n mean(dy w n)), dw = sum over rows of dy n.
template <class T>
void rms_norm_backward(const T* dy, const T* x, const float* w, const float* rstd, T* dx, float* dw,
                       int64_t rows, int64_t width) {
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
  }
}

}  // namespace

void add_norm(Table& table) {
  table.f32.rms_norm = rms_norm<float>;
  table.bf16.rms_norm = rms_norm<Bf16>;
  table.f32.rms_norm_backward = rms_norm_backward<float>;
  table.bf16.rms_norm_backward = rms_norm_backward<Bf16>;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
