// Sums over many arrays of one shape, element by element.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

constexpr int kSlices = 8;   // of the parts, added up apart
constexpr int kColumns = 8;  // of a block: a sector of 32 bytes of each part
constexpr int kSumThreads = kSlices * kColumns;
constexpr int kAtOnce = 16;  // parts on their way to a thread

// Thread (column, slice) adds the parts slice, slice + 8, ... of its column. Past the last part it reads the first again
// and adds 0, which leaves a sum that began at +0 as it is: a branch would delay the loads after it.
__global__ void __launch_bounds__(kSumThreads)
    parts_kernel(const float* parts, float* sum, int64_t count, int64_t width) {
  auto& of_slice = shared<float[kSlices][kColumns], struct OfSlice>();
  const int lane = threadIdx.x % kColumns, slice = threadIdx.x / kColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + lane;
  const int64_t end = count * width, step = kSlices * width;
  float mine = 0.0f;
  if (column < width) {
#pragma unroll 1
    for (int64_t at = slice * width + column; at < end; at += kAtOnce * step) {
      float x[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) x[k] = parts[at + k * step < end ? at + k * step : column];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) mine += at + k * step < end ? x[k] : 0.0f;
    }
  }
  of_slice[slice][lane] = mine;
  __syncthreads();
  if (slice > 0 || column >= width) return;
#pragma unroll
  for (int s = 1; s < kSlices; ++s) mine += of_slice[s][lane];
  sum[column] = mine;
}

void sum_parts(const float* parts, float* sum, int64_t count, int64_t width, Stream stream) {
  if (width == 0) return;
  launch(parts_kernel, {blocks_for(width, kColumns), kSumThreads}, stream, parts, sum, count, width);
}

// x = the sum of the 2^kLevels leaves from number `first` on.
template <int kLevels, class T, int N>
__device__ __forceinline__ void subtree(const TreeLeaves& leaves, int first, int64_t i, float (&x)[N]) {
  if constexpr (kLevels == 0) {
    get_stream(static_cast<const T*>(leaves.at[first]) + i, x);
  } else {
    float right[N];
    subtree<kLevels - 1, T>(leaves, first, i, x);
    subtree<kLevels - 1, T>(leaves, first + (1 << (kLevels - 1)), i, right);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] += right[j];
  }
}

// Adds the subtree of 2^kLevels leaves, where their count has one, to the left of x, which holds the subtrees of
// fewer leaves: the last ones.
template <int kLevels, class T, int N>
__device__ __forceinline__ void add_level(const TreeLeaves& leaves, int64_t i, float (&x)[N], bool& any) {
  if ((leaves.count >> kLevels & 1) == 0) return;
  const int first = leaves.count >> (kLevels + 1) << (kLevels + 1);  // the larger subtrees come before
  float left[N];
  subtree<kLevels, T>(leaves, first, i, left);
#pragma unroll
  for (int j = 0; j < N; ++j) x[j] = any ? left[j] + x[j] : left[j];
  any = true;
}

// Of the elements from i on.
template <class T, int N>
__device__ __forceinline__ void sum_leaves(const TreeLeaves& leaves, float* sum, int64_t i) {
  static_assert(kMostLeaves < 1 << 7);
  float x[N] = {};
  bool any = false;
  add_level<0, T>(leaves, i, x, any);
  add_level<1, T>(leaves, i, x, any);
  add_level<2, T>(leaves, i, x, any);
  add_level<3, T>(leaves, i, x, any);
  add_level<4, T>(leaves, i, x, any);
  add_level<5, T>(leaves, i, x, any);
  add_level<6, T>(leaves, i, x, any);
  put(sum + i, x);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) tree_kernel(const TreeLeaves leaves, float* sum, int64_t n) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i + N <= n) return sum_leaves<T, N>(leaves, sum, i);
#pragma unroll 1
  for (int64_t j = i; j < n; ++j) sum_leaves<T, 1>(leaves, sum, j);
}

// A lane's elements: 16 bytes of a leaf.
template <class T>
constexpr int kOfLane = sizeof(T) == 4 ? kFour : kRun;

void tree_sum(Element element, const TreeLeaves& leaves, float* sum, int64_t n, Stream stream) {
  if (n == 0 || leaves.count == 0) return;
  bool runs = aligned(sum);
  for (int leaf = 0; leaf < leaves.count; ++leaf) runs = runs && aligned(leaves.at[leaf]);
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    launch(runs ? tree_kernel<T, kOfLane<T>> : tree_kernel<T, 1>,
           {blocks_for(n, kThreads * (runs ? kOfLane<T> : 1)), kThreads}, stream, leaves, sum, n);
  });
}

}  // namespace

void add_sums(Table& table) {
  table.sum_parts = sum_parts;
  table.tree_sum = tree_sum;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
