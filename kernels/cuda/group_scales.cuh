// The scales that a group of consecutive values finds for itself (kernels/scale_fit.h), and the values under them. The lanes
// of a group find its scale together, each with N values: all lanes of a warp call, those past the end with zeros.
#pragma once

#include "kernels/cuda/rounding.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

constexpr int kSign = static_cast<int>(0x80000000u);

// A group's extremes as integers, by which magnitudes order as they do as numbers.
struct Extremes {
  int above, below;  // of the positive values, of the negated negative ones
};

struct IntMax {
  __device__ static int join(int a, int b) { return a > b ? a : b; }
};
struct IntMin {
  __device__ static int join(int a, int b) { return a < b ? a : b; }
};

// Over the group of kLanes lanes.
template <int kLanes, int N>
__device__ Extremes extremes_of(const float (&x)[N]) {
  int most[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < N; ++j) {
    most[0] = max(most[0], __float_as_int(x[j]));
    most[1] = max(most[1], __float_as_int(x[j]) ^ kSign);
  }
  over_lanes<IntMax, kLanes>(most);
  return {most[0], most[1]};
}

// The signed value of the largest magnitude, the first of equals; +0 for a group of zeros.
template <int kLanes, int N>
__device__ float extreme_value(const float (&x)[N]) {
  const Extremes e = extremes_of<kLanes>(x);
  int first[1] = {kLanes * N * 2};  // twice the place of the first that has the magnitude, plus its sign
#pragma unroll
  for (int j = N - 1; j >= 0; --j)
    if ((__float_as_int(x[j]) & 0x7fffffff) == e.above)
      first[0] = 2 * (static_cast<int>(threadIdx.x % kLanes) * N + j) + (__float_as_int(x[j]) < 0 ? 1 : 0);
  over_lanes<IntMin, kLanes>(first);
  if (e.above == e.below && e.above != 0)
    return first[0] % 2 == 1 ? -__int_as_float(e.above) : __int_as_float(e.above);
  return e.above >= e.below ? __int_as_float(e.above) : -__int_as_float(e.below);
}

// Numbers, of which NaN is both the least and the largest.
struct Least {
  __device__ static float join(float a, float b) { return a < b || a != a ? a : b; }
};
struct Largest {
  __device__ static float join(float a, float b) { return a > b || a != a ? a : b; }
};
template <class Join, int kLanes, int N>
__device__ float joined(const float (&x)[N]) {
  float value[1] = {x[0]};
#pragma unroll
  for (int j = 1; j < N; ++j) value[0] = Join::join(value[0], x[j]);
  over_lanes<Join, kLanes>(value);
  return value[0];
}

// The f16 number of a scale (quantize/grid.h's as_f16).
__device__ inline float held(float s) { return as_half(s > 65504.0f ? 65504.0f : s); }

struct GroupScale {
  float divisor, scale, offset = 0.0f;
};

// Of a group whose magnitudes are at most `peak`.
template <Fit kFit>
__device__ GroupScale scale_of_peak(float peak, float half_range) {
  if constexpr (kFit == Fit::kQ8_0) {
    const float d = __fdiv_rn(peak, 127.0f);
    return {d, as_half(d)};
  } else if constexpr (kFit == Fit::kFloat8) {
    const float s = __fdiv_rn(peak, 448.0f), scale = s < 1e-12f ? 1e-12f : s;
    return {scale, scale};
  } else {
    const float s = held(__fdiv_rn(peak, half_range)), scale = s < 0x1p-24f ? 0x1p-24f : s;
    return {scale, scale};
  }
}

template <Fit kFit, int kLanes, int N>
__device__ GroupScale fitted(const float (&x)[N], float half_range) {
  if constexpr (kFit == Fit::kQ4_0) {
    const float d = __fdiv_rn(extreme_value<kLanes>(x), -8.0f);
    return {d, as_half(d)};
  } else if constexpr (kFit == Fit::kQ4_1) {
    const float least = joined<Least, kLanes>(x), offset = held(least < -65504.0f ? -65504.0f : least);
    const float range = __fsub_rn(joined<Largest, kLanes>(x), offset);
    const float scale = held(__fdiv_rn(range < 0.0f ? 0.0f : range, 15.0f));
    return {scale, scale, offset};
  } else {
    const Extremes e = extremes_of<kLanes>(x);
    return scale_of_peak<kFit>(__int_as_float(max(e.above, e.below)), half_range);
  }
}

template <Fit kFit>
struct RuleOf {
  using type = NearestEven;
};
template <>
struct RuleOf<Fit::kQ8_0> {
  using type = NearestAway;
};
template <>
struct RuleOf<Fit::kQ4_0> {
  using type = Truncate;
};
template <>
struct RuleOf<Fit::kFloat8> {
  using type = Float8;
};

// A lane's values become those on the grid.
template <Fit kFit, int kLanes, int N>
__device__ void round_group(float (&x)[N], const GridRule& grid, float half_range) {
  const GroupScale s = fitted<kFit, kLanes>(x, half_range);
  const typename RuleOf<kFit>::type rule(s.divisor, grid);
#pragma unroll
  for (int j = 0; j < N; ++j)
    x[j] = kFit == Fit::kQ4_1 ? __fadd_rn(__fmul_rn(s.scale, rule(__fsub_rn(x[j], s.offset))), s.offset)
                              : __fmul_rn(s.scale, rule(x[j]));
}

// Calls f with the fit of a GroupGrid and the lanes of its group, each with N values, as constants.
template <int N, class F>
void with_groups(Fit fit, int64_t group, F f) {
  constexpr std::integral_constant<int, 32 / N> short_group;
  if (fit == Fit::kQ8_0) return f(std::integral_constant<Fit, Fit::kQ8_0>(), short_group);
  if (fit == Fit::kQ4_0) return f(std::integral_constant<Fit, Fit::kQ4_0>(), short_group);
  if (fit == Fit::kQ4_1) return f(std::integral_constant<Fit, Fit::kQ4_1>(), short_group);
  const std::integral_constant<Fit, Fit::kInteger> integer;
  group == 32 ? f(integer, short_group) : f(integer, std::integral_constant<int, 128 / N>());
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
