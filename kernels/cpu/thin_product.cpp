// Few rows x against many rows of w, each streamed from memory once. An output is one vector accumulator over
// the depth, so its bits depend on neither the number of rows nor the tile that it falls in; several outputs
// at a time hide the latency of a sum.
#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

#ifdef __AVX512F__
constexpr int kSums = 16;  // accumulators: half of the registers
#else
constexpr int kSums = 8;
#endif
constexpr int64_t kAhead = 2048;  // bytes of each row of w that are asked for before they are needed

template <class T, int kRows, int kColumns>
inline void tile(const float* x, const T* w, float* y, int64_t depth, int64_t stride) {
  Vec sums[kColumns][kRows] = {};
  const auto step = [&](int64_t i, auto part) {
    Vec of_x[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) of_x[r] = part.get(x + r * depth + i);
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      const Vec of_w = part.get(w + c * depth + i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sums[c][r] += of_w * of_x[r];
    }
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= depth; i += 2 * kLanes) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c)
      __builtin_prefetch(reinterpret_cast<const char*>(w + c * depth + i) + kAhead);
    step(i, Whole{});
    step(i + kLanes, Whole{});
  }
  for (; i + kLanes <= depth; i += kLanes) step(i, Whole{});
  if (i < depth) step(i, Part{static_cast<int>(depth - i)});
  for (int c = 0; c < kColumns; ++c)
    for (int r = 0; r < kRows; ++r) y[r * stride + c] = sum(sums[c][r]);
}

template <class T, int kRows>
void columns_of(const float* x, const T* w, float* y, int64_t depth, int64_t columns, int64_t stride) {
  constexpr int kColumns = kSums / kRows < 4 ? kSums / kRows : 4;
  int64_t c = 0;
  for (; c + kColumns <= columns; c += kColumns)
    tile<T, kRows, kColumns>(x, w + c * depth, y + c, depth, stride);
  for (; c < columns; ++c) tile<T, kRows, 1>(x, w + c * depth, y + c, depth, stride);
}

template <class T, int kRows = kThinRows>
void thin_product(const float* x, const T* w, float* y, int64_t rows, int64_t depth, int64_t columns,
                  int64_t stride) {
  if constexpr (kRows > 1)
    if (rows < kRows) return thin_product<T, kRows - 1>(x, w, y, rows, depth, columns, stride);
  columns_of<T, kRows>(x, w, y, depth, columns, stride);
}

}  // namespace

void add_thin_product(Table& table) {
  table.f32.thin_product = thin_product<float>;
  table.bf16.thin_product = thin_product<Bf16>;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
