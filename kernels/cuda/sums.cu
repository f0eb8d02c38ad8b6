// Sums over many arrays of one shape, element by element.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

constexpr int kSlices = 8;  // of the parts, added up apart

// A block takes 32 columns; thread (lane, slice) adds the parts slice, slice + 8, ... of its column.
__global__ void __launch_bounds__(kThreads)
    parts_kernel(const float* parts, float* sum, int64_t count, int64_t width) {
  auto& of_slice = shared<float[kSlices][kWarp], struct OfSlice>();
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  float mine = 0.0f;
  if (column < width) {
#pragma unroll 4
    for (int64_t p = slice; p < count; p += kSlices) mine += parts[p * width + column];
  }
  of_slice[slice][lane] = mine;
  __syncthreads();
  if (slice > 0 || column >= width) return;
  for (int s = 1; s < kSlices; ++s) mine += of_slice[s][lane];
  sum[column] = mine;
}

void sum_parts(const float* parts, float* sum, int64_t count, int64_t width, Stream stream) {
  if (width == 0) return;
  launch(parts_kernel, {blocks_for(width, kWarp), kThreads}, stream, parts, sum, count, width);
}

// x = the sum of 2^kLevels leaves that begin at `leaf` and are n apart.
template <int kLevels, int N>
__device__ __forceinline__ void subtree(const float* leaf, int64_t n, float (&x)[N]) {
  if constexpr (kLevels == 0) {
    get_stream(leaf, x);
  } else {
    float right[N];
    subtree<kLevels - 1>(leaf, n, x);
    subtree<kLevels - 1>(leaf + (n << (kLevels - 1)), n, right);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] += right[j];
  }
}

// Adds the subtree of 2^kLevels leaves, where `count` has one, to the left of x, which holds the subtrees of
// fewer leaves: the last ones.
template <int kLevels, int N>
__device__ __forceinline__ void add_level(const float* leaves, int64_t n, int64_t count, int64_t i,
                                          float (&x)[N], bool& any) {
  if ((count >> kLevels & 1) == 0) return;
  const int64_t first = count >> (kLevels + 1) << (kLevels + 1);  // the larger subtrees come before
  float left[N];
  subtree<kLevels>(leaves + first * n + i, n, left);
#pragma unroll
  for (int j = 0; j < N; ++j) x[j] = any ? left[j] + x[j] : left[j];
  any = true;
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    tree_kernel(const float* leaves, float* sum, double* squares, int64_t count, int64_t n) {
  static_assert(kTreeChunk == kThreads * kRun);
  double square = 0.0;
#pragma unroll 1
  for (int step = 0; step < kRun; step += N) {  // a block takes kTreeChunk elements, in runs or one by one
    const int64_t i = blockIdx.x * kTreeChunk + step * kThreads + static_cast<int64_t>(threadIdx.x) * N;
    if (i >= n) break;
    float x[N] = {};
    bool any = false;
    add_level<0>(leaves, n, count, i, x, any);
    add_level<1>(leaves, n, count, i, x, any);
    add_level<2>(leaves, n, count, i, x, any);
    add_level<3>(leaves, n, count, i, x, any);
    add_level<4>(leaves, n, count, i, x, any);
    add_level<5>(leaves, n, count, i, x, any);
    add_level<6>(leaves, n, count, i, x, any);
    put(sum + i, x);
#pragma unroll
    for (const float value : x) square += static_cast<double>(value) * static_cast<double>(value);
  }
  if (squares == nullptr) return;
  square = over_group<Sum, kThreads>(square);
  if (threadIdx.x == 0) squares[blockIdx.x] = square;
}

void tree_sum(const float* leaves, float* sum, double* squares, int64_t count, int64_t n, Stream stream) {
  if (n == 0 || count == 0) return;
  const bool runs = n % kRun == 0 && aligned(leaves, sum);
  launch(runs ? tree_kernel<kRun> : tree_kernel<1>, {blocks_for(n, kTreeChunk), kThreads}, stream, leaves,
         sum, squares, count, n);
}

}  // namespace

void add_sums(Table& table) {
  table.sum_parts = sum_parts;
  table.tree_sum = tree_sum;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
