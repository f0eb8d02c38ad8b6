// One vector of floats, as wide as the instruction set that the including source is compiled for, and what
// the loops of this folder do with it. Everything is static or in a namespace named after the instruction set
// (RETORT_ISA), and no standard header with inline functions may be included: code for AVX-512 must not
// become the linker's choice for a function that an AVX2 machine runs.
#pragma once

#include <cstdint>

#include "kernels/cpu/table.h"

#ifndef RETORT_ISA
#define RETORT_ISA avx2
#endif

namespace retort::kernels::cpu::RETORT_ISA {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
using Vec = float __attribute__((vector_size(4 * kLanes)));
using IntVec = int32_t __attribute__((vector_size(4 * kLanes)));
using WordVec = uint32_t __attribute__((vector_size(4 * kLanes)));  // bits of a Vec: overflow is defined
using LooseVec = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using HalfVec = uint16_t __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
using HalvesVec = uint16_t __attribute__((vector_size(4 * kLanes)));  // of a WordVec, the lower one first

constexpr float kInfinity = __builtin_inff();

static inline Vec splat(float x) { return x - Vec{}; }
static inline IntVec lanes_from(int32_t first) {
  IntVec out = {};
  for (int i = 0; i < kLanes; ++i) out[i] = i;
  return out + first;
}

static inline float to_float(float x) { return x; }
static inline float to_float(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

static inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }

// Shuffles, because GCC makes a __builtin_convertvector of halves in two parts and joins them.
template <int... kHalf>
static inline WordVec widened(const HalfVec& x, std::integer_sequence<int, kHalf...>) {
  return (WordVec)__builtin_shufflevector(x, HalfVec{}, (kHalf % 2 == 0 ? kHalf / 2 : kLanes)...);
}
template <int... kLane>
static inline HalfVec upper_halves(WordVec x, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector((HalvesVec)x, (HalvesVec)x, (2 * kLane + 1)...);
}

static inline Vec load(const Bf16* p) {
  constexpr std::make_integer_sequence<int, 2 * kLanes> kHalves;
  return (Vec)(widened(*reinterpret_cast<const HalfVec*>(p), kHalves) << 16);
}
// Round to nearest even; a NaN keeps its upper half, with a bit set so that it stays one.
static inline void store(Bf16* p, Vec v) {
  const WordVec bits = (WordVec)v;
  const WordVec rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const WordVec kept = v == v ? rounded : bits | 0x400000;
  constexpr std::make_integer_sequence<int, kLanes> kAll;
  *reinterpret_cast<HalfVec*>(p) = upper_halves(kept, kAll);
}

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// Pairwise over the lanes, always in the same order.
static inline float sum(Vec v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}
static inline float max(Vec v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  return lane[0];
}

// e^x within 2 units in the last place: x = n ln 2 + r with |r| <= ln(2)/2, a minimax polynomial for e^r
// (relative error 3e-9), and n added to the exponent. 0 below -87.3 (no denormals), infinity above 88.7, NaN
// of NaN.
static inline Vec exp(Vec x) {
  const Vec round = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Vec t = x * 1.44269504f + round;
  const Vec n = t - round;
  const Vec r = (x - n * 0.69287109375f) - n * 2.7608681e-4f;
  Vec p = r * 1.38145383e-3f + 8.36874545e-3f;
  p = p * r + 4.16683890e-2f;
  p = p * r + 1.66665211e-1f;
  p = p * r + 4.99999940e-1f;
  p = p * (r * r) + r + 1.0f;
  const Vec scaled = (Vec)((WordVec)p + ((WordVec)t << 23));
  const Vec low = x < -87.3f ? splat(0.0f) : scaled;
  return x <= 88.72f ? low : x * kInfinity;
}

// ln x within 2 units in the last place for normal x > 0: x = 2^n (1 + r) with 1 + r in [sqrt(1/2), sqrt(2)),
// and Cephes' minimax polynomial for ln(1 + r). Relative to the result also near x = 1.
static inline Vec log(Vec x) {
  const WordVec bits = (WordVec)x;
  const WordVec from_half = bits - 0x3f3504f3;  // of sqrt(1/2): the exponent field counts from there
  const IntVec n = (IntVec)from_half >> 23;
  const Vec r = (Vec)(bits - ((WordVec)n << 23)) - 1.0f;
  const Vec scale = __builtin_convertvector(n, Vec);
  Vec p = r * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  const Vec square = r * r;
  const Vec tail = p * (square * r) - scale * 2.12194440e-4f - square * 0.5f;
  return r + tail + scale * 0.693359375f;
}

// A vector of memory, whole or the last `count` lanes of it.
struct Whole {
  template <class T>
  Vec get(const T* p, float = 0.0f) const {
    return load(p);
  }
  template <class T>
  void put(T* p, Vec v) const {
    store(p, v);
  }
};
struct Part {
  int count;
  template <class T>
  Vec get(const T* p, float fill = 0.0f) const {
    Vec out = splat(fill);
    for (int i = 0; i < count; ++i) out[i] = to_float(p[i]);
    return out;
  }
  template <class T>
  void put(T* p, Vec v) const {
    T lane[kLanes];
    store(lane, v);
    for (int i = 0; i < count; ++i) p[i] = lane[i];
  }
};

// body(offset, accumulator 0..3, Whole or Part) over n elements; four accumulators hide the latency of a sum.
template <class Body>
static inline __attribute__((always_inline)) void sweep(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    body(i, 0, Whole{});
    body(i + kLanes, 1, Whole{});
    body(i + 2 * kLanes, 2, Whole{});
    body(i + 3 * kLanes, 3, Whole{});
  }
  for (; i + kLanes <= n; i += kLanes) body(i, 0, Whole{});
  if (i < n) body(i, 0, Part{static_cast<int>(n - i)});
}

static inline float sum(const Vec (&parts)[4]) { return sum((parts[0] + parts[1]) + (parts[2] + parts[3])); }
static inline float max(const Vec (&parts)[4]) {
  return max(max(max(parts[0], parts[1]), max(parts[2], parts[3])));
}

template <class T>
static inline float row_max(const T* z, int64_t n) {
  Vec top[4] = {splat(-kInfinity), splat(-kInfinity), splat(-kInfinity), splat(-kInfinity)};
  sweep(n, [&](int64_t i, int k, auto part) { top[k] = max(top[k], part.get(z + i, -kInfinity)); });
  return max(top);
}

// Each source fills its part of the table.
void add_norm(Table& table);
void add_gate(Table& table);
void add_rope(Table& table);
void add_row_losses(Table& table);
void add_divergences(Table& table);
void add_sparse_losses(Table& table);
void add_attention(Table& table);
void add_thin_product(Table& table);
void add_bf16_product(Table& table);

}  // namespace retort::kernels::cpu::RETORT_ISA
