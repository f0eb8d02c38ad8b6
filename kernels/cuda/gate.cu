// silu and gelu_tanh are x s(k(x)), s the logistic function: silu has k = x, gelu_tanh
// k = 2 sqrt(2/pi) (x + 0.044715 x^3).
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda {

namespace {

// s(k) and 1 - s without cancellation; the bound keeps e^-k finite.
struct Logistic {
  float s, rest;
  __device__ explicit Logistic(float k) {
    const float e = expf(-fmaxf(k, -87.0f));
    s = 1.0f / (1.0f + e);
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

template <class G, class T>
__global__ void forward(const T* a, const T* u, T* y, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += int64_t{gridDim.x} * kThreads)
    put(y + i, G::value(to_float(a[i])) * (u == nullptr ? 1.0f : to_float(u[i])));
}

template <class G, class T>
__global__ void backward(const T* dy, const T* a, const T* u, T* da, T* du, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += int64_t{gridDim.x} * kThreads) {
    float value;
    const float g = to_float(dy[i]), slope = G::slope(to_float(a[i]), value);
    put(da + i, u == nullptr ? g * slope : g * slope * to_float(u[i]));
    if (u != nullptr) put(du + i, g * value);
  }
}

}  // namespace

void gate(Gate gate, Element element, const void* a, const void* u, void* y, int64_t n, Stream stream) {
  if (n == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const auto kernel = gate == Gate::kSilu       ? forward<Silu, T>
                        : gate == Gate::kGeluTanh ? forward<GeluTanh, T>
                                                  : forward<Relu2, T>;
    kernel<<<blocks_for(n), kThreads, 0, stream>>>(static_cast<const T*>(a), static_cast<const T*>(u),
                                                   static_cast<T*>(y), n);
  });
}

void gate_backward(Gate gate, Element element, const void* dy, const void* a, const void* u, void* da,
                   void* du, int64_t n, Stream stream) {
  if (n == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    const auto kernel = gate == Gate::kSilu       ? backward<Silu, T>
                        : gate == Gate::kGeluTanh ? backward<GeluTanh, T>
                                                  : backward<Relu2, T>;
    kernel<<<blocks_for(n), kThreads, 0, stream>>>(static_cast<const T*>(dy), static_cast<const T*>(a),
                                                   static_cast<const T*>(u), static_cast<T*>(da),
                                                   static_cast<T*>(du), n);
  });
}

}  // namespace retort::kernels::cuda
