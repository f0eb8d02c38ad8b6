// y = h rstd w, rstd = 1 / sqrt(mean(h^2) + eps), h = x or x + residual. With n = x rstd:
// dx = rstd (dy w - n mean(dy w n)) + dsum, dw = sum over rows of dy n, in registers until the last row.
#include "kernels/cuda/norm.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

template <class T>
struct Forward {
  const T *x, *residual;
  const float* w;
  T *sum, *y;
  float* rstd;
  int64_t rows, width;
  float eps;
};

template <class T, class Plan, bool kResidual>
__global__ void __launch_bounds__(Plan::threads) forward(Forward<T> a) {
  const int64_t row = Plan::first_row(), at = row * a.width;
  const bool live = row < a.rows;
  float h[Plan::held][Plan::n], squares = 0.0f;
  if (live)
    Plan::each(a.width, [&](int k, int64_t i) {
      get(a.x + at + i, h[k]);
      if constexpr (kResidual) {
        float r[Plan::n];
        get(a.residual + at + i, r);
#pragma unroll
        for (int j = 0; j < Plan::n; ++j) h[k][j] += r[j];
        round_to<T>(h[k]);
        put(a.sum + at + i, h[k]);
      }
#pragma unroll
      for (int j = 0; j < Plan::n; ++j) squares += h[k][j] * h[k][j];
    });
  squares = over_group<Sum, Plan::lanes>(squares);
  if (!live) return;
  const float r = 1.0f / sqrtf(squares / static_cast<float>(a.width) + a.eps);
  if (threadIdx.x % Plan::lanes == 0) a.rstd[row] = r;
  Plan::each(a.width, [&](int k, int64_t i) {
    if constexpr (Plan::steps == 0) get((kResidual ? a.sum : a.x) + at + i, h[k]);
    float w[Plan::n];
    get(a.w + i, w);
#pragma unroll
    for (int j = 0; j < Plan::n; ++j) w[j] = h[k][j] * r * w[j];
    put(a.y + at + i, w);
  });
}

template <class T>
struct Backward {
  const T *dy, *x, *dsum;
  const float *w, *rstd;
  T* dx;
  float* dw;
  int64_t parts, rows, width;
};

// A run that waits for its use: of bf16 as it lies in memory, in half the registers.
template <class T, int N>
struct Waiting {
  float x[N];
  __device__ void load(const T* p) { get(p, x); }
  __device__ void values(float (&out)[N]) const {
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = x[j];
  }
};
template <>
struct Waiting<Bf16, kRun> {
  uint4 bits;
  __device__ void load(const Bf16* p) { bits = __ldca(reinterpret_cast<const uint4*>(p)); }
  __device__ void values(float (&out)[kRun]) const { unpack(bits, out); }
};

// All that a row needs of the memory is on its way before its sum, at whose barrier the block waits.
template <class T, class Plan, bool kSum>
__global__ void __launch_bounds__(Plan::threads, Plan::resident) backward(Backward<T> a) {
  constexpr int N = Plan::n;
  constexpr bool kInMemory = Plan::steps == 0;  // dw: a thread's columns are its own, so nothing is shared
  const int64_t part = Plan::first_row(), rounds = (a.rows + a.parts - 1) / a.parts;
  float dw[Plan::held][N] = {}, w[Plan::held][N];
  if (part < a.parts)
    Plan::each(a.width, [&](int k, int64_t i) {
      if constexpr (kInMemory)
        put(a.dw + part * a.width + i, dw[k]);
      else
        get(a.w + i, w[k]);
    });
  for (int64_t round = 0; round < rounds; ++round) {  // as many for all: threads of a warp meet in each
    const int64_t row = part + round * a.parts, at = row * a.width;
    const bool live = part < a.parts && row < a.rows;
    const float r = live ? a.rstd[row] : 0.0f;
    float g[Plan::held][N], n[Plan::held][N], product = 0.0f;
    Waiting<T, N> sum[Plan::held];
    if (live)
      Plan::each(a.width, [&](int k, int64_t i) {
        get(a.dy + at + i, g[k]);
        get(a.x + at + i, n[k]);
        if constexpr (kInMemory) get(a.w + i, w[k]);
        if constexpr (kSum && !kInMemory) sum[k].load(a.dsum + at + i);
#pragma unroll
        for (int j = 0; j < N; ++j) product += g[k][j] * w[k][j] * n[k][j];
      });
    const float mean = over_group<Sum, Plan::lanes>(product) * r / static_cast<float>(a.width);
    if (!live) continue;
    Plan::each(a.width, [&](int k, int64_t i) {
      float dx[N] = {};
      if constexpr (kInMemory) {
        get(a.dy + at + i, g[k]);
        get(a.x + at + i, n[k]);
        get(a.w + i, w[k]);
        get(a.dw + part * a.width + i, dw[k]);
        if constexpr (kSum) sum[k].load(a.dsum + at + i);
      }
      if constexpr (kSum) sum[k].values(dx);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float normal = n[k][j] * r;
        dx[j] += (g[k][j] * w[k][j] - normal * mean) * r;
        dw[k][j] += g[k][j] * normal;
      }
      put(a.dx + at + i, dx);
      if constexpr (kInMemory) put(a.dw + part * a.width + i, dw[k]);
    });
  }
  if (!kInMemory && part < a.parts)
    Plan::each(a.width, [&](int k, int64_t i) { put(a.dw + part * a.width + i, dw[k]); });
}

void rms_norm(Element element, NormRows shape, const void* x, const void* residual, const float* w, void* sum,
              void* y, float* rstd, Stream stream) {
  if (shape.rows == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Forward<T> a{static_cast<const T*>(x),
                       static_cast<const T*>(residual),
                       w,
                       static_cast<T*>(sum),
                       static_cast<T*>(y),
                       rstd,
                       shape.rows,
                       shape.width,
                       shape.eps};
    with_row_plan(shape.width, aligned(a.x, a.residual, a.w, a.sum, a.y), [&](auto plan) {
      using Plan = decltype(plan);
      launch(residual == nullptr ? forward<T, Plan, false> : forward<T, Plan, true>,
             {blocks_for(shape.rows, Plan::rows_of_block), Plan::threads}, stream, a);
    });
  });
}

void rms_norm_backward(Element element, NormRows shape, const void* dy, const void* x, const float* w,
                       const float* rstd, const void* dsum, void* dx, NormParts dw, Stream stream) {
  if (dw.parts == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Backward<T> a{static_cast<const T*>(dy),
                        static_cast<const T*>(x),
                        static_cast<const T*>(dsum),
                        w,
                        rstd,
                        static_cast<T*>(dx),
                        dw.gradients,
                        dw.parts,
                        shape.rows,
                        shape.width};
    with_row_plan(shape.width, aligned(a.dy, a.x, a.dsum, a.w, a.dx, a.dw), [&](auto plan) {
      using Plan = decltype(plan);
      launch(dsum == nullptr ? backward<T, Plan, false> : backward<T, Plan, true>,
             {blocks_for(dw.parts, Plan::rows_of_block), Plan::threads}, stream, a);
    });
  });
}

}  // namespace

void add_rms_norm(Table& table) {
  table.rms_norm = rms_norm;
  table.rms_norm_backward = rms_norm_backward;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
