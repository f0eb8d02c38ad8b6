// What each divergence of kernels/row_losses.h and divergences.h adds at a place. Every struct is a Loss of
// row_losses.cuh.
#pragma once

#include "kernels/cuda/row_losses.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

// Most losses are found without looking at their row.
struct OfPlaces {
  float mix;
  template <class R>
  __device__ static float mix_of(float mix, const R&, const Softmax&, const Softmax&) {
    return mix;
  }
};

struct ForwardKl : OfPlaces {
  static constexpr float kPulls = -1.0f;
  __device__ void operator()(const Place& x, float& value, float& pull) const {
    if (x.p > 0.0f) value += x.p * (x.log_p - x.log_q);
    pull = -x.p;
  }
};

struct ReverseKl : OfPlaces {
  static constexpr float kPulls = NAN;
  __device__ void operator()(const Place& x, float& value, float& pull) const {
    pull = x.q > 0.0f ? x.q * (x.log_q - fmaxf(x.log_p, kLogFloor)) : 0.0f;
    value += pull;
  }
};

struct Jsd : OfPlaces {
  static constexpr float kPulls = NAN;
  __device__ void operator()(const Place& x, float& value, float& pull) const {
    const float m = x.p * mix + x.q * (1.0f - mix);
    pull = x.q * log_ratio(x.q, m) * (1.0f - mix);
    value += x.p * log_ratio(x.p, m) * mix + pull;
  }
};

struct SkewForwardKl : OfPlaces {
  static constexpr float kPulls = NAN;
  __device__ void operator()(const Place& x, float& value, float& pull) const {
    const float m = x.p * mix + x.q * (1.0f - mix);
    value += x.p * log_ratio(x.p, m);
    pull = __fdividef(x.p, fmaxf(m, kLeast)) * x.q * (mix - 1.0f);
  }
};

struct SkewReverseKl : OfPlaces {
  static constexpr float kPulls = NAN;
  __device__ void operator()(const Place& x, float& value, float& pull) const {
    const float m = x.p * (1.0f - mix) + x.q * mix, of_q = x.q * log_ratio(x.q, m);
    value += of_q;
    pull = of_q - __fdividef(x.q, fmaxf(m, kLeast)) * x.q * mix;
  }
};

struct TotalVariation : OfPlaces {
  static constexpr float kPulls = NAN;
  __device__ void operator()(const Place& x, float& value, float& pull) const {
    const float d = x.q - x.p;
    value += fabsf(d) * 0.5f;
    pull = d > 0.0f ? x.q * 0.5f : (d < 0.0f ? x.q * -0.5f : 0.0f);
  }
};

// The share of forward KL: how much of |p - q| lies on the smallest set of ids that holds half of p. The
// least exponential of that set is found by search over the bits of a float, whose order is that of the
// numbers, with kProbes guesses a pass.
struct AdaptiveKl {
  static constexpr float kPulls = NAN;
  static constexpr int kProbes = 7;
  float mix;  // the share of forward KL

  template <class T, int kLanes>
  __device__ static float mix_of(float, const Row<T, kLanes>& row, const Softmax& p, const Softmax& q) {
    const float least = head_of(row, p);
    float gaps[2] = {0.0f, 0.0f};  // of all, on the head
    sweep<kLanes, true>(row.compared(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float z[N], t[N];
      get(row.z + i, z);
      get(row.teacher + i, t);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float e = exp2_or_zero(p.below_top(t[j])), gap = fabsf(q.probability(z[j]) - e * p.share);
        gaps[0] += gap;
        gaps[1] += e >= least ? gap : 0.0f;
      }
    });
    over_group<Sum, kLanes>(gaps);
    return gaps[0] > 0.0f ? gaps[1] / gaps[0] : 0.5f;
  }
  // The least exponential of the head.
  template <class T, int kLanes>
  __device__ static float head_of(const Row<T, kLanes>& row, const Softmax& p) {
    const float half = 0.5f / p.share;
    unsigned int low = __float_as_uint(half / static_cast<float>(row.common));  // all below cannot hold half
    unsigned int high = __float_as_uint(1.0f) + 1;
    while (high - low > 1) {
      float mass[kProbes] = {};
      sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
        constexpr int N = decltype(count)::value;
        float t[N];
        get(row.teacher + i, t);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float e = exp2_or_zero(p.below_top(t[j]));
#pragma unroll
          for (int k = 0; k < kProbes; ++k) mass[k] += e >= __uint_as_float(probe(low, high, k)) ? e : 0.0f;
        }
      });
      over_group<Sum, kLanes>(mass);
      int holding = 0;  // guesses from which on half is held; they fall with the guess
#pragma unroll
      for (int k = 0; k < kProbes; ++k) holding += mass[k] >= half ? 1 : 0;
      const unsigned int next = holding == kProbes ? high : probe(low, high, holding);
      if (holding > 0) low = probe(low, high, holding - 1);
      high = next > low ? next : low + 1;
    }
    return __uint_as_float(low);
  }
  // The k-th of kProbes numbers that divide low .. high evenly.
  __device__ static unsigned int probe(unsigned int low, unsigned int high, int k) {
    const unsigned int width = high - low, each = width / (kProbes + 1), rest = width % (kProbes + 1);
    return low + each * (k + 1) + rest * (k + 1) / (kProbes + 1);
  }

  __device__ void operator()(const Place& x, float& value, float& pull) const {
    const float backward = x.q > 0.0f ? x.q * (x.log_q - fmaxf(x.log_p, kLogFloor)) : 0.0f;
    const float covering = x.p > 0.0f ? x.p * (x.log_p - x.log_q) : 0.0f;
    value += covering * mix + backward * (1.0f - mix);
    pull = backward * (1.0f - mix) - x.p * mix;
  }
};

// Calls f with a typed null pointer after the divergence.
#pragma nv_exec_check_disable
template <class F>
__host__ __device__ void with_divergence(RowLossKind kind, F f) {
  switch (kind) {
    case RowLossKind::kForwardKl:
      return f(static_cast<ForwardKl*>(nullptr));
    case RowLossKind::kReverseKl:
      return f(static_cast<ReverseKl*>(nullptr));
    case RowLossKind::kJsd:
      return f(static_cast<Jsd*>(nullptr));
    case RowLossKind::kSkewForwardKl:
      return f(static_cast<SkewForwardKl*>(nullptr));
    case RowLossKind::kSkewReverseKl:
      return f(static_cast<SkewReverseKl*>(nullptr));
    case RowLossKind::kTotalVariation:
      return f(static_cast<TotalVariation*>(nullptr));
    case RowLossKind::kAdaptiveKl:
      return f(static_cast<AdaptiveKl*>(nullptr));
    case RowLossKind::kCrossEntropy:
    case RowLossKind::kLogitMse:
    case RowLossKind::kLabels:
      return;
  }
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
