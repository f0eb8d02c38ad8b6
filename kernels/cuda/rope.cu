// A thread turns one run of the first halves of a head and the run of the second halves that belongs to it.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

template <class T>
struct Heads {
  const T *q, *k;
  T *q_out, *k_out;
  const float *cos, *sin;
  const int64_t* positions;
  int64_t tokens, q_stride, k_stride;
  int q_heads, k_heads, half;
  float sign;
};

template <int N, class T>
__device__ void turn(const T* x, T* y, const float* cos, const float* sin, int half, float sign) {
  float a[N], b[N], c[N], s[N];
  get(x, a);
  get(x + half, b);
  get(cos, c);
  get(sin, s);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float sine = s[j] * sign, first = a[j] * c[j] - b[j] * sine;
    b[j] = b[j] * c[j] + a[j] * sine;
    a[j] = first;
  }
  put(y, a);
  put(y + half, b);
}

// A block takes `tokens_of_block` tokens, all heads of q and k.
template <int N, class T>
__global__ void __launch_bounds__(kThreads) rope(Heads<T> h, int tokens_of_block) {
  const int runs = h.half / N, of_token = (h.q_heads + h.k_heads) * runs;
  for (int at = threadIdx.x; at < tokens_of_block * of_token; at += kThreads) {
    const int64_t token = static_cast<int64_t>(blockIdx.x) * tokens_of_block + at / of_token;
    if (token >= h.tokens) return;
    const int head = at % of_token / runs, i = at % runs * N;
    const int64_t angles = h.positions[token] * h.half + i;
    if (head < h.q_heads) {
      const int64_t place = head * 2 * h.half + i, out = token * h.q_heads * 2 * h.half + place;
      turn<N>(h.q + token * h.q_stride + place, h.q_out + out, h.cos + angles, h.sin + angles, h.half,
              h.sign);
    } else {
      const int64_t place = (head - h.q_heads) * 2 * h.half + i, out = token * h.k_heads * 2 * h.half + place;
      turn<N>(h.k + token * h.k_stride + place, h.k_out + out, h.cos + angles, h.sin + angles, h.half,
              h.sign);
    }
  }
}

void rope(Element element, const RopeHeads& q, const RopeHeads& k, const float* cos, const float* sin,
          const int64_t* positions, int64_t tokens, int64_t half, float sign, Stream stream) {
  const int64_t heads = q.heads + k.heads;
  if (tokens == 0 || heads == 0 || half == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Heads<T> h{static_cast<const T*>(q.x),
                     static_cast<const T*>(k.x),
                     static_cast<T*>(q.y),
                     static_cast<T*>(k.y),
                     cos,
                     sin,
                     positions,
                     tokens,
                     q.stride,
                     k.stride,
                     static_cast<int>(q.heads),
                     static_cast<int>(k.heads),
                     static_cast<int>(half),
                     sign};
    const bool runs = half % kRun == 0 && q.stride % kRun == 0 && k.stride % kRun == 0 &&
                      aligned(h.q, h.k, h.q_out, h.k_out, cos, sin);
    const int64_t of_token = heads * half / (runs ? kRun : 1);
    const int64_t tokens_of_block = of_token < kThreads ? kThreads / of_token : 1;
    launch(runs ? rope<kRun, T> : rope<1, T>, {blocks_for(tokens, tokens_of_block), kThreads}, stream, h,
           static_cast<int>(tokens_of_block));
  });
}

}  // namespace

void add_rope(Table& table) { table.rope = rope; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
