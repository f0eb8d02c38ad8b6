// Weights to the values that a quantized file would hold, in one pass: f32 read, f32 or bf16 written.
#include "kernels/cuda/rounding.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

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

// Over the group of kLanes lanes, each with a run.
template <int kLanes>
__device__ Extremes extremes_of(const float (&x)[kRun]) {
  int most[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < kRun; ++j) {
    most[0] = max(most[0], __float_as_int(x[j]));
    most[1] = max(most[1], __float_as_int(x[j]) ^ kSign);
  }
  over_lanes<IntMax, kLanes>(most);
  return {most[0], most[1]};
}

// The signed value of the largest magnitude, the first of equals; +0 for a group of zeros.
template <int kLanes>
__device__ float extreme_value(const float (&x)[kRun]) {
  const Extremes e = extremes_of<kLanes>(x);
  int first[1] = {kLanes * kRun * 2};  // twice the place of the first that has the magnitude, plus its sign
#pragma unroll
  for (int j = kRun - 1; j >= 0; --j)
    if ((__float_as_int(x[j]) & 0x7fffffff) == e.above)
      first[0] = 2 * (static_cast<int>(threadIdx.x % kLanes) * kRun + j) + (__float_as_int(x[j]) < 0 ? 1 : 0);
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
template <class Join, int kLanes>
__device__ float joined(const float (&x)[kRun]) {
  float value[1] = {x[0]};
#pragma unroll
  for (int j = 1; j < kRun; ++j) value[0] = Join::join(value[0], x[j]);
  over_lanes<Join, kLanes>(value);
  return value[0];
}

// The f16 number of a scale (quantize/grid.h's as_f16).
__device__ float held(float s) { return as_half(s > 65504.0f ? 65504.0f : s); }

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

template <Fit kFit, int kLanes>
__device__ GroupScale fitted(const float (&x)[kRun], float half_range) {
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

// A thread takes a run; the lanes of a group find its scale together. n is a multiple of the group.
template <Fit kFit, int kLanes, class T>
__global__ void __launch_bounds__(kThreads)
    groups_kernel(GridRule grid, float half_range, const float* x, T* y, int64_t n) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kRun;
  float v[kRun] = {};
  if (i < n) get_stream(x + i, v);
  const GroupScale s = fitted<kFit, kLanes>(v, half_range);
  if (i >= n) return;
  const typename RuleOf<kFit>::type rule(s.divisor, grid);
#pragma unroll
  for (int j = 0; j < kRun; ++j)
    v[j] = kFit == Fit::kQ4_1 ? __fadd_rn(__fmul_rn(s.scale, rule(__fsub_rn(v[j], s.offset))), s.offset)
                              : __fmul_rn(s.scale, rule(v[j]));
  put(y + i, v);
}

// A block rounds a row.
template <int N, class R, class T>
__device__ void round_row(const R& rule, float scale, const float* x, T* y, int64_t width) {
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < width; i += kThreads * N) {
    float v[N];
    get_stream(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = __fmul_rn(scale, rule(v[j]));
    put(y + i, v);
  }
}

// A block takes a row.
template <class R, int N, class T>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(GridRule grid, const float* x, const float* scales, T* y, int64_t width) {
  const float scale = scales[blockIdx.x];
  const int64_t first = blockIdx.x * width;
  round_row<N>(R(scale, grid), scale, x + first, y + first, width);
}

// The same under the scale of the row's largest magnitude; its second pass finds the row in the cache.
template <Fit kFit, int N, class T>
__global__ void __launch_bounds__(kThreads)
    fitted_rows_kernel(GridRule grid, float half_range, const float* x, T* y, int64_t width) {
  const int64_t first = blockIdx.x * width;
  int most = 0;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < width; i += kThreads * N) {
    float v[N];
    get(x + first + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) most = max(most, __float_as_int(v[j]) & ~kSign);
  }
  most = over_group<IntMax, kThreads>(most);
  const float scale = scale_of_peak<kFit>(__int_as_float(most), half_range).scale;
  round_row<N>(typename RuleOf<kFit>::type(scale, grid), scale, x + first, y + first, width);
}

void fake_quantize_groups(Fit fit, GridRule grid, float half_range, int64_t group, Element element,
                          const float* x, void* y, int64_t n, Stream stream) {
  if (n == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const auto kernel = fit == Fit::kQ8_0   ? groups_kernel<Fit::kQ8_0, 32 / kRun, T>
                        : fit == Fit::kQ4_0 ? groups_kernel<Fit::kQ4_0, 32 / kRun, T>
                        : fit == Fit::kQ4_1 ? groups_kernel<Fit::kQ4_1, 32 / kRun, T>
                        : group == 32       ? groups_kernel<Fit::kInteger, 32 / kRun, T>
                                            : groups_kernel<Fit::kInteger, 128 / kRun, T>;
    launch(kernel, {blocks_for(n, kThreads * kRun), kThreads}, stream, grid, half_range, x,
           static_cast<T*>(y), n);
  });
}

void fake_quantize_rows(GridRule grid, Element element, const float* x, const float* scales, void* y,
                        int64_t rows, int64_t width, Stream stream) {
  if (rows == 0 || width == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    with_rule(grid.rule, [&](auto* rule) {
      using R = std::remove_pointer_t<decltype(rule)>;
      const bool runs = width % kRun == 0 && aligned(x, static_cast<T*>(y));
      launch(runs ? rows_kernel<R, kRun, T> : rows_kernel<R, 1, T>,
             {static_cast<unsigned int>(rows), kThreads}, stream, grid, x, scales, static_cast<T*>(y), width);
    });
  });
}

void fake_quantize_fitted_rows(Fit fit, GridRule grid, float half_range, Element element, const float* x,
                               void* y, int64_t rows, int64_t width, Stream stream) {
  if (rows == 0 || width == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const bool runs = width % kRun == 0 && aligned(x, static_cast<T*>(y)), float8 = fit == Fit::kFloat8;
    const auto kernel =
        runs ? (float8 ? fitted_rows_kernel<Fit::kFloat8, kRun, T>
                       : fitted_rows_kernel<Fit::kInteger, kRun, T>)
             : (float8 ? fitted_rows_kernel<Fit::kFloat8, 1, T> : fitted_rows_kernel<Fit::kInteger, 1, T>);
    launch(kernel, {static_cast<unsigned int>(rows), kThreads}, stream, grid, half_range, x,
           static_cast<T*>(y), width);
  });
}

}  // namespace

void add_fake_quantize(Table& table) {
  table.fake_quantize_groups = fake_quantize_groups;
  table.fake_quantize_rows = fake_quantize_rows;
  table.fake_quantize_fitted_rows = fake_quantize_fitted_rows;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
