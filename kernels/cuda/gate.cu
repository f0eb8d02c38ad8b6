// silu and gelu_tanh are x s(k(x)), s the logistic function: silu has k = x, gelu_tanh
// k = 2 sqrt(2/pi) (x + 0.044715 x^3). A thread takes one run.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// s(k) and 1 - s without cancellation. The bound keeps e^-k below 2^126, from where on that division gives 0; it is two
// units of the last place off at most, and has no slow path.
struct Logistic {
  float s, rest;
  __device__ explicit Logistic(float k) {
    const float e = expf(-fmaxf(k, -87.0f));
    s = __fdividef(1.0f, 1.0f + e);
    rest = e * s;
  }
};

struct Silu {
  __device__ static float value(float x) { return x * Logistic(x).s; }
  __device__ static float slope(float x, float& value) {
    const Logistic gate(x);
    value = x * gate.s;
    return gate.s + value * gate.rest;
  }
};

struct GeluTanh {
  static constexpr float kLinear = 1.5957691216f, kCubic = 0.044715f;
  __device__ static float bounded(float x) { return fminf(fmaxf(x, -10.0f), 10.0f); }
  __device__ static float value(float x) {
    const float b = bounded(x);
    return x * Logistic(b * kLinear * (1.0f + kCubic * b * b)).s;
  }
  __device__ static float slope(float x, float& value) {
    const float b = bounded(x);
    const Logistic gate(b * kLinear * (1.0f + kCubic * b * b));
    value = x * gate.s;
    return gate.s + b * gate.s * gate.rest * kLinear * (1.0f + 3.0f * kCubic * b * b);
  }
};

struct Relu2 {
  __device__ static float positive(float x) { return x < 0.0f ? 0.0f : x; }  // NaN stays NaN
  __device__ static float value(float x) { return positive(x) * positive(x); }
  __device__ static float slope(float x, float& value) {
    const float p = positive(x);
    value = p * p;
    return 2.0f * p;
  }
};

template <class T>
struct Forward {
  const T *a, *u;
  T* y;
};

template <class G, bool kFactor, int N, class T>
__device__ void forward_run(const Forward<T>& p, int64_t i) {
  float a[N], u[N];
  get(p.a + i, a);
  if constexpr (kFactor) get(p.u + i, u);
#pragma unroll
  for (int j = 0; j < N; ++j) a[j] = G::value(a[j]) * (kFactor ? u[j] : 1.0f);
  put(p.y + i, a);
}

template <class T>
struct Backward {
  const T *dy, *a, *u;
  T *da, *du;
};

template <class G, bool kFactor, int N, class T>
__device__ void backward_run(const Backward<T>& p, int64_t i) {
  float g[N], a[N], u[N];
  get(p.dy + i, g);
  get(p.a + i, a);
  if constexpr (kFactor) get(p.u + i, u);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    float value;
    const float slope = G::slope(a[j], value);
    a[j] = kFactor ? g[j] * slope * u[j] : g[j] * slope;
    u[j] = g[j] * value;
  }
  put(p.da + i, a);
  if constexpr (kFactor) put(p.du + i, u);
}

// The run of thread t, or its single elements where a run does not fit.
template <int N, class Run, class One>
__device__ void over_runs(int64_t n, Run run, One one) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i + N <= n) return run(i);
#pragma unroll 1
  for (int64_t j = i; j < n; ++j) one(j);
}

template <class G, bool kFactor, int N, class T>
__global__ void __launch_bounds__(kThreads) forward(Forward<T> p, int64_t n) {
  over_runs<N>(
      n, [&](int64_t i) { forward_run<G, kFactor, N>(p, i); },
      [&](int64_t i) { forward_run<G, kFactor, 1>(p, i); });
}

template <class G, bool kFactor, int N, class T>
__global__ void __launch_bounds__(kThreads) backward(Backward<T> p, int64_t n) {
  over_runs<N>(
      n, [&](int64_t i) { backward_run<G, kFactor, N>(p, i); },
      [&](int64_t i) { backward_run<G, kFactor, 1>(p, i); });
}

template <class F>
void with_gate(Gate gate, F f) {
  if (gate == Gate::kSilu) return f(Silu());
  if (gate == Gate::kGeluTanh) return f(GeluTanh());
  f(Relu2());
}

void gate(Gate gate, Element element, const void* a, const void* u, void* y, int64_t n, Stream stream) {
  if (n == 0) return;
  const bool runs = aligned(static_cast<const char*>(a), static_cast<const char*>(u), static_cast<char*>(y));
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Forward<T> p{static_cast<const T*>(a), static_cast<const T*>(u), static_cast<T*>(y)};
    with_gate(gate, [&](auto kind) {
      using G = decltype(kind);
      const auto with_runs = u == nullptr ? forward<G, false, kRun, T> : forward<G, true, kRun, T>;
      const auto one_by_one = u == nullptr ? forward<G, false, 1, T> : forward<G, true, 1, T>;
      launch(runs ? with_runs : one_by_one, {blocks_for(n, kThreads * (runs ? kRun : 1)), kThreads}, stream,
             p, n);
    });
  });
}

void gate_backward(Gate gate, Element element, const void* dy, const void* a, const void* u, void* da,
                   void* du, int64_t n, Stream stream) {
  if (n == 0) return;
  const bool runs = aligned(static_cast<const char*>(dy), static_cast<const char*>(a),
                            static_cast<const char*>(u), static_cast<char*>(da), static_cast<char*>(du));
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const Backward<T> p{static_cast<const T*>(dy), static_cast<const T*>(a), static_cast<const T*>(u),
                        static_cast<T*>(da), static_cast<T*>(du)};
    with_gate(gate, [&](auto kind) {
      using G = decltype(kind);
      const auto with_runs = u == nullptr ? backward<G, false, kRun, T> : backward<G, true, kRun, T>;
      const auto one_by_one = u == nullptr ? backward<G, false, 1, T> : backward<G, true, 1, T>;
      launch(runs ? with_runs : one_by_one, {blocks_for(n, kThreads * (runs ? kRun : 1)), kThreads}, stream,
             p, n);
    });
  });
}

}  // namespace

void add_gate(Table& table) {
  table.gate = gate;
  table.gate_backward = gate_backward;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
