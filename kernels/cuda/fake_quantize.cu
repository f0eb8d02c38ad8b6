// Weights to the values that a quantized file would hold, in one pass: f32 read, f32 or bf16 written.
#include "kernels/cuda/rounding.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

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
    most[1] = max(most[1], __float_as_int(-x[j]));
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

struct GroupScale {
  float divisor, scale;
};

template <Fit kFit, int kLanes>
__device__ GroupScale fitted(const float (&x)[kRun], float half_range) {
  if constexpr (kFit == Fit::kQ4_0) {
    const float d = __fdiv_rn(extreme_value<kLanes>(x), -8.0f);
    return {d, as_half(d)};
  } else {
    const Extremes e = extremes_of<kLanes>(x);
    const float peak = __int_as_float(max(e.above, e.below));
    if constexpr (kFit == Fit::kQ8_0) {
      const float d = __fdiv_rn(peak, 127.0f);
      return {d, as_half(d)};
    } else {
      const float s = __fdiv_rn(peak, half_range);
      const float held = as_half(s > 65504.0f ? 65504.0f : s), scale = held < 0x1p-24f ? 0x1p-24f : held;
      return {scale, scale};
    }
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
  for (int j = 0; j < kRun; ++j) v[j] = __fmul_rn(s.scale, rule(v[j]));
  put(y + i, v);
}

// A block takes a row.
template <class R, int N, class T>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(GridRule grid, const float* x, const float* scales, T* y, int64_t width) {
  const float scale = scales[blockIdx.x];
  const R rule(scale, grid);
  x += blockIdx.x * width;
  y += blockIdx.x * width;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < width; i += kThreads * N) {
    float v[N];
    get_stream(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = __fmul_rn(scale, rule(v[j]));
    put(y + i, v);
  }
}

// A warp takes a row. The mean is the CPU's (kernels/magnitudes.cpp): eight f32 sums of every 256 values,
// added up in f64, where they do not round but for rows of very unequal sums. Two lanes have such a part of
// the row, four of its sums each.
constexpr int kPart = 256, kSums = 4;

__device__ double sums_of_part(const float* x, int64_t begin, int64_t end, int half, bool runs) {
  float sums[kSums] = {};
  int64_t i = begin;
  for (; i + 8 <= end; i += 8) {
    const float* p = x + i + kSums * half;
    const float4 v = runs ? *reinterpret_cast<const float4*>(p) : make_float4(p[0], p[1], p[2], p[3]);
    sums[0] += fabsf(v.x);
    sums[1] += fabsf(v.y);
    sums[2] += fabsf(v.z);
    sums[3] += fabsf(v.w);
  }
  if (half == 0)
    for (; i < end; ++i) sums[0] += fabsf(x[i]);
  return static_cast<double>(sums[0]) + static_cast<double>(sums[1]) + static_cast<double>(sums[2]) +
         static_cast<double>(sums[3]);
}

__global__ void __launch_bounds__(kThreads)
    means_kernel(const float* x, float* out, int64_t rows, int64_t width) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  x += row * width;
  double total[1] = {0.0};
  const bool runs = reinterpret_cast<uintptr_t>(x) % 16 == 0;
  if (row < rows)
    for (int64_t begin = lane / 2 * kPart; begin < width; begin += kWarp / 2 * kPart)
      total[0] += sums_of_part(x, begin, begin + kPart < width ? begin + kPart : width, lane % 2, runs);
  over_lanes<Sum, kWarp>(total);
  if (row < rows && lane == 0) out[row] = static_cast<float>(total[0] / static_cast<double>(width));
}

template <int N>
__global__ void __launch_bounds__(kThreads) peaks_kernel(const float* x, float* out, int64_t width) {
  x += blockIdx.x * width;
  int most = 0;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < width; i += kThreads * N) {
    float v[N];
    get(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) most = max(most, __float_as_int(v[j]) & 0x7fffffff);
  }
  most = over_group<IntMax, kThreads>(most);
  if (threadIdx.x == 0) out[blockIdx.x] = __int_as_float(most);
}

void fake_quantize_groups(Fit fit, GridRule grid, float half_range, int64_t group, Element element,
                          const float* x, void* y, int64_t n, Stream stream) {
  if (n == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const auto kernel = fit == Fit::kQ8_0   ? groups_kernel<Fit::kQ8_0, 32 / kRun, T>
                        : fit == Fit::kQ4_0 ? groups_kernel<Fit::kQ4_0, 32 / kRun, T>
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

void row_magnitudes(bool mean, const float* x, float* out, int64_t rows, int64_t width, Stream stream) {
  if (rows == 0 || width == 0) return;
  if (mean)
    return launch(means_kernel, {blocks_for(rows, kThreads / kWarp), kThreads}, stream, x, out, rows, width);
  const bool runs = width % kRun == 0 && aligned(x);
  launch(runs ? peaks_kernel<kRun> : peaks_kernel<1>, {static_cast<unsigned int>(rows), kThreads}, stream, x,
         out, width);
}

}  // namespace

void add_fake_quantize(Table& table) {
  table.fake_quantize_groups = fake_quantize_groups;
  table.fake_quantize_rows = fake_quantize_rows;
  table.row_magnitudes = row_magnitudes;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
