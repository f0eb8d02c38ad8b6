// y = (x - mean) rstd w + b. The variance is that of the differences from the mean, not of the squares. With
// n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)), dw = sum over rows of dy n, db of
// dy.
#include "kernels/cuda/norm.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

template <class T>
struct Forward {
  const T* x;
  const float *w, *b;
  T* y;
  float *mean, *rstd;
  int64_t rows, width;
  float eps;
};

template <class T, class Plan>
__global__ void __launch_bounds__(Plan::threads) forward(Forward<T> a) {
  const int64_t row = Plan::first_row(), at = row * a.width;
  const bool live = row < a.rows;
  const float share = 1.0f / static_cast<float>(a.width);
  float x[Plan::held][Plan::n], sum = 0.0f;
  if (live)
    Plan::each(a.width, [&](int k, int64_t i) {
      get(a.x + at + i, x[k]);
#pragma unroll
      for (int j = 0; j < Plan::n; ++j) sum += x[k][j];
    });
  const float near = over_group<Sum, Plan::lanes>(sum) * share;
  // What rounding left of the mean, and the squares, of differences that are exact near it.
  float rest[2] = {0.0f, 0.0f};
  if (live)
    Plan::each(a.width, [&](int k, int64_t i) {
      if constexpr (Plan::steps == 0) get(a.x + at + i, x[k]);
#pragma unroll
      for (int j = 0; j < Plan::n; ++j) {
        const float d = x[k][j] - near;
        rest[0] += d;
        rest[1] += d * d;
      }
    });
  over_group<Sum, Plan::lanes>(rest);
  if (!live) return;
  const float left = rest[0] * share, mean = near + left, variance = rest[1] * share - left * left;
  const float r = 1.0f / sqrtf((variance < 0.0f ? 0.0f : variance) + a.eps);  // a NaN stays
  if (threadIdx.x % Plan::lanes == 0) {
    a.mean[row] = mean;
    a.rstd[row] = r;
  }
  Plan::each(a.width, [&](int k, int64_t i) {
    if constexpr (Plan::steps == 0) get(a.x + at + i, x[k]);
    float w[Plan::n], b[Plan::n];
    get(a.w + i, w);
    get(a.b + i, b);
#pragma unroll
    for (int j = 0; j < Plan::n; ++j) w[j] = (x[k][j] - mean) * r * w[j] + b[j];
    put(a.y + at + i, w);
  });
}

template <class T>
struct Backward {
  const T *dy, *x;
  const float *w, *mean, *rstd;
  T* dx;
  float* dwb;
  int64_t parts, rows, width;
};

template <class T, class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::resident) backward(Backward<T> a) {
  constexpr int N = Plan::n;
  constexpr bool kInMemory = Plan::steps == 0;
  const int64_t part = Plan::first_row(), rounds = (a.rows + a.parts - 1) / a.parts;
  const float share = 1.0f / static_cast<float>(a.width);
  float *const of_w = a.dwb + part * 2 * a.width, *const of_b = of_w + a.width;
  float dw[Plan::held][N] = {}, db[Plan::held][N] = {};
  const auto write = [&] {
    if (part < a.parts)
      Plan::each(a.width, [&](int k, int64_t i) {
        put(of_w + i, dw[k]);
        put(of_b + i, db[k]);
      });
  };
  if (kInMemory) write();
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t row = part + round * a.parts, at = row * a.width;
    const bool live = part < a.parts && row < a.rows;
    const float m = live ? a.mean[row] : 0.0f, r = live ? a.rstd[row] : 0.0f;
    float dy[Plan::held][N], x[Plan::held][N], sums[2] = {0.0f, 0.0f};
    if (live)
      Plan::each(a.width, [&](int k, int64_t i) {
        float w[N];
        get(a.dy + at + i, dy[k]);
        get(a.x + at + i, x[k]);
        get(a.w + i, w);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          sums[0] += dy[k][j] * w[j];
          sums[1] += dy[k][j] * w[j] * (x[k][j] - m);
        }
      });
    over_group<Sum, Plan::lanes>(sums);
    if (!live) continue;
    const float mean_g = sums[0] * share, mean_gn = sums[1] * share * r;
    Plan::each(a.width, [&](int k, int64_t i) {
      float w[N], dx[N];
      if constexpr (kInMemory) {
        get(a.dy + at + i, dy[k]);
        get(a.x + at + i, x[k]);
        get(of_w + i, dw[k]);
        get(of_b + i, db[k]);
      }
      get(a.w + i, w);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float n = (x[k][j] - m) * r;
        dx[j] = (dy[k][j] * w[j] - mean_g - n * mean_gn) * r;
        dw[k][j] += dy[k][j] * n;
        db[k][j] += dy[k][j];
      }
      put(a.dx + at + i, dx);
      if constexpr (kInMemory) {
        put(of_w + i, dw[k]);
        put(of_b + i, db[k]);
      }
    });
  }
  if (!kInMemory) write();
}

void layer_norm(Element element, NormRows shape, const void* x, const float* w, const float* b, void* y,
                float* moments, Stream stream) {
  if (shape.rows == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Forward<T> a{static_cast<const T*>(x), w,          b,           static_cast<T*>(y), moments,
                       moments + shape.rows,     shape.rows, shape.width, shape.eps};
    with_row_plan(shape.width, aligned(a.x, a.w, a.b, a.y), [&](auto plan) {
      using Plan = decltype(plan);
      launch(forward<T, Plan>, {blocks_for(shape.rows, Plan::rows_of_block), Plan::threads}, stream, a);
    });
  });
}

void layer_norm_backward(Element element, NormRows shape, const void* dy, const void* x, const float* w,
                         const float* moments, void* dx, NormParts dwb, Stream stream) {
  if (dwb.parts == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Backward<T> a{static_cast<const T*>(dy),
                        static_cast<const T*>(x),
                        w,
                        moments,
                        moments + shape.rows,
                        static_cast<T*>(dx),
                        dwb.gradients,
                        dwb.parts,
                        shape.rows,
                        shape.width};
    with_row_plan(shape.width, aligned(a.dy, a.x, a.w, a.dx, a.dwb), [&](auto plan) {
      using Plan = decltype(plan);
      launch(backward<T, Plan>, {blocks_for(dwb.parts, Plan::rows_of_block), Plan::threads}, stream, a);
    });
  });
}

}  // namespace

void add_layer_norm(Table& table) {
  table.layer_norm = layer_norm;
  table.layer_norm_backward = layer_norm_backward;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
