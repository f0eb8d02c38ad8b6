// Weights to the values that a quantized file would hold, in one pass: f32 read, f32 or bf16 written.
#include "kernels/cuda/group_scales.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// A thread takes a run; the lanes of a group find its scale together. n is a multiple of the group.
template <Fit kFit, int kLanes, class T>
__global__ void __launch_bounds__(kThreads)
    groups_kernel(GridRule grid, float half_range, const float* x, T* y, int64_t n) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kRun;
  float v[kRun] = {};
  if (i < n) get_stream(x + i, v);
  round_group<kFit, kLanes>(v, grid, half_range);
  if (i < n) put(y + i, v);
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

void fake_quantize_groups(const GroupGrid& grid, Element element, const float* x, void* y, int64_t n,
                          Stream stream) {
  if (n == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    with_groups<kRun>(grid.fit, grid.group, [&](auto fit, auto lanes) {
      launch(groups_kernel<decltype(fit)::value, decltype(lanes)::value, T>,
             {blocks_for(n, kThreads * kRun), kThreads}, stream, grid.rule, grid.half_range, x,
             static_cast<T*>(y), n);
    });
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
