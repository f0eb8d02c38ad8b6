#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

template <class T>
void rope(const T* x, const float* cos, const float* sin, const int64_t* positions, T* y, int64_t tokens,
          int64_t heads, int64_t half, float sign) {
  for (int64_t token = 0; token < tokens; ++token) {
    const float* c = cos + positions[token] * half;
    const float* s = sin + positions[token] * half;
    for (int64_t head = 0; head < heads; ++head, x += 2 * half, y += 2 * half)
      sweep(half, [&](int64_t i, int, auto part) {
        const Vec a = part.get(x + i), b = part.get(x + half + i);
        const Vec cosine = part.get(c + i), sine = part.get(s + i) * sign;
        part.put(y + i, a * cosine - b * sine);
        part.put(y + half + i, b * cosine + a * sine);
      });
  }
}

}  // namespace

void add_rope(Table& table) {
  table.f32.rope = rope<float>;
  table.bf16.rope = rope<Bf16>;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
