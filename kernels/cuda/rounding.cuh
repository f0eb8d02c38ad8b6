// The rounding rules of kernels/block_codes.h, one value at a time. Every operation is rounded on its own
// (__fmul_rn and its kin are never contracted), so that values equal those of kernels/rounding.cpp bit for
// bit; a rule is a function object made for one divisor.
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

__device__ inline float as_half(float x) { return __half2float(__float2half_rn(x)); }
__device__ inline float inverse_of(float d) { return d != 0.0f ? __fdiv_rn(1.0f, d) : 0.0f; }
// Sends NaN to `high`.
__device__ inline float clamped(float x, float low, float high) {
  const float below = x < high ? x : high;
  return below > low ? below : low;
}
// Halves to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
__device__ inline float nearest(float v) { return __fsub_rn(__fadd_rn(v, 12582912.0f), 12582912.0f); }

struct NearestEven {
  float d, low, high;
  // A divisor of 0 has the lowest code alone.
  __device__ NearestEven(float divisor, const GridRule& g)
      : d(divisor != 0.0f ? divisor : 1.0f),
        low(static_cast<float>(g.lowest)),
        high(static_cast<float>(divisor != 0.0f ? g.highest : g.lowest)) {}
  __device__ float operator()(float x) const { return nearest(clamped(__fdiv_rn(x, d), low, high)); }
};

struct NearestAway {
  float inverse, low, high;
  __device__ NearestAway(float divisor, const GridRule& g)
      : inverse(inverse_of(divisor)),
        low(static_cast<float>(g.lowest)),
        high(static_cast<float>(g.highest)) {}
  __device__ float operator()(float x) const {
    const float v = clamped(__fmul_rn(x, inverse), low, high), whole = truncf(v), rest = __fsub_rn(v, whole);
    return whole + (rest >= 0.5f ? 1.0f : 0.0f) - (rest <= -0.5f ? 1.0f : 0.0f) + 0.0f;
  }
};

struct Truncate {
  float inverse, shift, levels, lowest;
  __device__ Truncate(float divisor, const GridRule& g)
      : inverse(inverse_of(divisor)),
        shift(0.5f - static_cast<float>(g.lowest)),
        levels(static_cast<float>(g.highest - g.lowest)),
        lowest(static_cast<float>(g.lowest)) {}
  __device__ float operator()(float x) const {
    return truncf(clamped(__fadd_rn(__fmul_rn(x, inverse), shift), 0.0f, levels)) + lowest;
  }
};

struct Odd {
  float inverse, low, high;
  __device__ Odd(float divisor, const GridRule& g)
      : inverse(inverse_of(divisor)),
        low(static_cast<float>(g.lowest)),
        high(static_cast<float>(g.highest)) {}
  __device__ float operator()(float x) const {
    const float v = clamped(__fmul_rn(x, inverse), low, high);
    return 2.0f * nearest(__fsub_rn(__fmul_rn(0.5f, v), 0.5f)) + 1.0f;
  }
};

struct Sign {
  __device__ Sign(float, const GridRule&) {}
  __device__ float operator()(float x) const { return x >= 0.0f ? 1.0f : -1.0f; }
};

// The midpoints of neighbours, twice: .5 1.5 2.5 3.5 5 7 10. A code is the sum of the steps that were passed;
// kEven: every other midpoint is a step already.
template <bool kEven>
struct Float4 {
  float d;
  __device__ Float4(float divisor, const GridRule&) : d(divisor != 0.0f ? divisor : 1.0f) {}
  __device__ static int up(float size, float midpoint) {
    return static_cast<int>(kEven ? size >= midpoint : size > midpoint);
  }
  __device__ float operator()(float x) const {
    const float v = __fdiv_rn(x, d), size = v < 0.0f ? -v : v;
    const int code = static_cast<int>(size > 0.5f) + up(size, 1.5f) + static_cast<int>(size > 2.5f) +
                     up(size, 3.5f) + 2 * static_cast<int>(size > 5.0f) + 2 * up(size, 7.0f) +
                     4 * static_cast<int>(size > 10.0f);
    return static_cast<float>(v < 0.0f ? -code : code);
  }
};

// E4M3: three bits of fraction, below 2^-6 multiples of 2^-9. Adding the power of two whose last bit is the
// last that stays rounds to it, halves to even. NaN stays NaN.
struct Float8 {
  float d;
  __device__ Float8(float divisor, const GridRule&) : d(divisor) {}
  __device__ float operator()(float x) const {
    const float v = d != 0.0f ? __fdiv_rn(x, d) : 0.0f, size = v < 0.0f ? -v : v,
                kept = size > 448.0f ? 448.0f : size;
    const unsigned int exponent = __float_as_uint(kept) & 0x7f800000, least = (127 - 6) << 23;
    const float power = __uint_as_float((exponent > least ? exponent : least) + (20u << 23));
    const unsigned int sign = __float_as_uint(v) & 0x80000000;
    return __uint_as_float(__float_as_uint(__fsub_rn(__fadd_rn(kept, power), power)) | sign);
  }
};

// Calls f with a null pointer to the rule's type.
template <class F>
void with_rule(Rule rule, F f) {
  switch (rule) {
    case Rule::kNearestEven:
      return f(static_cast<NearestEven*>(nullptr));
    case Rule::kNearestAway:
      return f(static_cast<NearestAway*>(nullptr));
    case Rule::kTruncate:
      return f(static_cast<Truncate*>(nullptr));
    case Rule::kOdd:
      return f(static_cast<Odd*>(nullptr));
    case Rule::kSign:
      return f(static_cast<Sign*>(nullptr));
    case Rule::kFloat4:
      return f(static_cast<Float4<false>*>(nullptr));
    case Rule::kFloat4Even:
      return f(static_cast<Float4<true>*>(nullptr));
    case Rule::kFloat8:
      return f(static_cast<Float8*>(nullptr));
  }
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
