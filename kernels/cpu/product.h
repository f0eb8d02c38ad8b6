// A small matrix product out of registers, for blocks that lie in cache: C = A B or C += A B.
// A(i, p) = a[i * row + p * column], so a transposed A needs no copy; B and C are row-major and `n` is a
// multiple of kLanes. Sums run over p in order.
#pragma once

#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

struct Strided {
  const float* data;
  int64_t row, column;
};

// kTileRows x 2 accumulators, 2 vectors of B and a broadcast fit the registers (32 or 16). 12 rows would fit
// 32, but 8 divide a block.
#ifdef __AVX512F__
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 6;
#endif

template <int kRows, int kVectors>
static inline void tile(int64_t depth, Strided a, const float* b, int64_t ldb, float* c, int64_t ldc,
                        bool add) {
  Vec sum[kRows][kVectors] = {};
  for (int64_t p = 0; p < depth; ++p) {
    Vec of_b[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) of_b[v] = load(b + p * ldb + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vec of_a = splat(a.data[i * a.row + p * a.column]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] += of_a * of_b[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* const out = c + i * ldc + v * kLanes;
      store(out, add ? load(out) + sum[i][v] : sum[i][v]);
    }
}

// The last rows of a column of tiles, fewer than a whole tile.
template <int kVectors, int kRows = kTileRows - 1>
static inline void last_tile(int64_t rows, int64_t depth, Strided a, const float* b, int64_t ldb, float* c,
                             int64_t ldc, bool add) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return tile<kRows, kVectors>(depth, a, b, ldb, c, ldc, add);
    last_tile<kVectors, kRows - 1>(rows, depth, a, b, ldb, c, ldc, add);
  }
}

template <int kVectors>
static inline void column_of_tiles(int64_t m, int64_t depth, Strided a, const float* b, int64_t ldb, float* c,
                                   int64_t ldc, bool add) {
  int64_t i = 0;
  for (; i + kTileRows <= m; i += kTileRows)
    tile<kTileRows, kVectors>(depth, {a.data + i * a.row, a.row, a.column}, b, ldb, c + i * ldc, ldc, add);
  last_tile<kVectors>(m - i, depth, {a.data + i * a.row, a.row, a.column}, b, ldb, c + i * ldc, ldc, add);
}

static inline void multiply(int64_t m, int64_t n, int64_t depth, Strided a, const float* b, int64_t ldb,
                            float* c, int64_t ldc, bool add) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) column_of_tiles<2>(m, depth, a, b + j, ldb, c + j, ldc, add);
  if (j < n) column_of_tiles<1>(m, depth, a, b + j, ldb, c + j, ldc, add);
}

}  // namespace retort::kernels::cpu::RETORT_ISA
