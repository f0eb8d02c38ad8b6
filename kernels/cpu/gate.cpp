// silu and gelu_tanh are x s(k(x)) with the logistic function s: silu has k = x, and gelu_tanh has
// k = 2 sqrt(2/pi) (x + 0.044715 x^3), because (1 + tanh(a)) / 2 = s(2 a).
#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

// s(k), and 1 - s without cancellation. The bound keeps e^-k finite; s is then at least 1e-38.
struct Logistic {
  Vec s, rest;
  explicit Logistic(Vec k) {
    const Vec e = exp(k < -87.0f ? splat(87.0f) : -k);
    s = 1.0f / (1.0f + e);
    rest = e * s;
  }
};

struct Silu {
  static Vec value(Vec x) { return x * Logistic(x).s; }
  // d/dx; sets value too.
  static Vec slope(Vec x, Vec& value) {
    const Logistic gate(x);
    value = x * gate.s;
    return gate.s + value * gate.rest;
  }
};

struct GeluTanh {
  static constexpr float kLinear = 1.5957691216f;  // 2 sqrt(2 / pi)
  static constexpr float kCubic = 0.044715f;
  // Beyond 10 the gate is 0 or 1 in f32; the bound keeps x^3 finite.
  static Vec bounded(Vec x) {
    const Vec low = x < -10.0f ? splat(-10.0f) : x;
    return low > 10.0f ? splat(10.0f) : low;
  }
  static Vec value(Vec x) {
    const Vec b = bounded(x);
    return x * Logistic(b * kLinear * (1.0f + kCubic * b * b)).s;
  }
  static Vec slope(Vec x, Vec& value) {
    const Vec b = bounded(x);
    const Logistic gate(b * kLinear * (1.0f + kCubic * b * b));
    value = x * gate.s;
    return gate.s + b * gate.s * gate.rest * kLinear * (1.0f + 3.0f * kCubic * b * b);
  }
};

struct Relu2 {
  static Vec positive(Vec x) { return x < 0.0f ? splat(0.0f) : x; }  // NaN stays NaN
  static Vec value(Vec x) { return positive(x) * positive(x); }
  static Vec slope(Vec x, Vec& value) {
    const Vec p = positive(x);
    value = p * p;
    return 2.0f * p;
  }
};

template <class G, class T>
void forward(const T* a, const T* u, T* y, int64_t n) {
  if (u == nullptr)
    sweep(n, [&](int64_t i, int, auto part) { part.put(y + i, G::value(part.get(a + i))); });
  else
    sweep(n,
          [&](int64_t i, int, auto part) { part.put(y + i, G::value(part.get(a + i)) * part.get(u + i)); });
}

template <class G, class T>
void backward(const T* dy, const T* a, const T* u, T* da, T* du, int64_t n) {
  sweep(n, [&](int64_t i, int, auto part) {
    Vec value;
    const Vec g = part.get(dy + i), slope = G::slope(part.get(a + i), value);
    part.put(da + i, u == nullptr ? g * slope : g * slope * part.get(u + i));
    if (u != nullptr) part.put(du + i, g * value);
  });
}

template <class T>
void gate(Gate gate, const T* a, const T* u, T* y, int64_t n) {
  switch (gate) {
    case Gate::kSilu:
      return forward<Silu>(a, u, y, n);
    case Gate::kGeluTanh:
      return forward<GeluTanh>(a, u, y, n);
    case Gate::kRelu2:
      return forward<Relu2>(a, u, y, n);
  }
}

template <class T>
void gate_backward(Gate gate, const T* dy, const T* a, const T* u, T* da, T* du, int64_t n) {
  switch (gate) {
    case Gate::kSilu:
      return backward<Silu>(dy, a, u, da, du, n);
    case Gate::kGeluTanh:
      return backward<GeluTanh>(dy, a, u, da, du, n);
    case Gate::kRelu2:
      return backward<Relu2>(dy, a, u, da, du, n);
  }
}

}  // namespace

void add_gate(Table& table) {
  table.f32.gate = gate<float>;
  table.bf16.gate = gate<Bf16>;
  table.f32.gate_backward = gate_backward<float>;
  table.bf16.gate_backward = gate_backward<Bf16>;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
