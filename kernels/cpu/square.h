// Transposes a square of vectors in registers.
#pragma once

#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

// Lanes kFrom, kFrom + 1, ... of two rows in turn.
template <int kFrom, int... kLane>
static inline Vec interleaved(const Vec& a, const Vec& b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kFrom + kLane / 2 + kLane % 2 * kLanes)...);
}

// One square of kLanes: log2(kLanes) rounds of interleaving row i with row i + kLanes / 2.
static inline void transpose_square(Vec (&rows)[kLanes]) {
  constexpr std::make_integer_sequence<int, kLanes> kAll;
  for (int round = 1; round < kLanes; round *= 2) {
    Vec next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleaved<0>(rows[i], rows[i + kLanes / 2], kAll);
      next[2 * i + 1] = interleaved<kLanes / 2>(rows[i], rows[i + kLanes / 2], kAll);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

}  // namespace retort::kernels::cpu::RETORT_ISA
