// Tokens come sorted by id, those of one id in their own order. A block looks at eight places of that order,
// a warp at one: where a run of one id begins, the warp adds up its rows, a slice of columns at a time. Runs
// of more than kShort rows are shared by the block's warps, a contiguous part each, added up in their order.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kShort = kWarp;

template <class T>
struct Rows {
  const T* dy;
  const int64_t *ids, *order;
  float* dw;
  int64_t n, width;
};

// How many places from `begin` on hold its id; 0 unless a run begins there. The same for all lanes.
template <class T>
__device__ int64_t run_length(const Rows<T>& a, int64_t begin, int lane) {
  if (begin >= a.n || (begin > 0 && a.ids[begin - 1] == a.ids[begin])) return 0;
  const int64_t id = a.ids[begin];
  const bool same = begin + lane < a.n && a.ids[begin + lane] == id;
  const unsigned int others = ~__ballot_sync(kAllLanes, static_cast<int>(same));
  if (others != 0) return __ffs(static_cast<int>(others)) - 1;
  int64_t low = begin + kWarp, high = a.n;  // the first place of another id is among them
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (a.ids[middle] == id)
      low = middle + 1;
    else
      high = middle;
  }
  return low - begin;
}

template <int N, class T>
__device__ void add_rows(const Rows<T>& a, int64_t begin, int64_t end, int64_t column, float (&sum)[N]) {
#pragma unroll 4
  for (int64_t at = begin; at < end; ++at) {
    float x[N];
    get(a.dy + a.order[at] * a.width + column, x);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += x[j];
  }
}

template <int N>
__device__ void add_to(float* p, const float (&sum)[N]) {
  float x[N];
  get(p, x);
#pragma unroll
  for (int j = 0; j < N; ++j) x[j] += sum[j];
  put(p, x);
}

template <int N, class T>
__global__ void __launch_bounds__(kThreads) embedding_kernel(Rows<T> a) {
  auto& lengths = shared<int64_t[kWarps], struct Lengths>();
  auto& of_warp = shared<float[kWarps][kWarp * N], struct OfWarp>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps, begin = first + warp;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * kWarp + lane) * N;
  const int64_t length = run_length(a, begin, lane);
  if (lane == 0) lengths[warp] = length;
  __syncthreads();
  if (length > 0 && length <= kShort && column < a.width) {
    float sum[N] = {};
    add_rows<N>(a, begin, begin + length, column, sum);
    add_to(a.dw + a.ids[begin] * a.width + column, sum);
  }
  for (int w = 0; w < kWarps; ++w) {
    const int64_t rows = lengths[w];
    if (rows <= kShort) continue;  // all threads agree
    const int64_t part = (rows + kWarps - 1) / kWarps, from = part * warp < rows ? part * warp : rows,
                  to = from + part < rows ? from + part : rows;
    float sum[N] = {};
    if (column < a.width) add_rows<N>(a, first + w + from, first + w + to, column, sum);
#pragma unroll
    for (int j = 0; j < N; ++j) of_warp[warp][j * kWarp + lane] = sum[j];
    __syncthreads();
    if (warp == 0 && column < a.width) {
      for (int other = 1; other < kWarps; ++other)
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] += of_warp[other][j * kWarp + lane];
      add_to(a.dw + a.ids[first + w] * a.width + column, sum);
    }
    __syncthreads();
  }
}

void embedding_backward(Element element, const void* dy, const int64_t* ids, const int64_t* order, float* dw,
                        int64_t n, int64_t width, Stream stream) {
  if (n == 0 || width == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Rows<T> a{static_cast<const T*>(dy), ids, order, dw, n, width};
    const bool runs = width % kRun == 0 && aligned(a.dy, dw);
    const dim3 blocks(blocks_for(n, kWarps), blocks_for(width, kWarp * (runs ? kRun : 1)));
    launch(runs ? embedding_kernel<kRun, T> : embedding_kernel<1, T>, {blocks, kThreads}, stream, a);
  });
}

}  // namespace

void add_embedding(Table& table) { table.embedding_backward = embedding_backward; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
