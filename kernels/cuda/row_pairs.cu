// Two losses on one row, beside cross-entropy or without it. A kernel for each pair would be hundreds: here a loss is a
// number of the launch, and all go the same way. The softmaxes come from the one pass over the memory, what the losses add
// up to from a second, the gradient from a third, both of which find the row in the cache. A loss adds
// factor (pull_j - q_j pulls) to the gradient: the squared difference of logits has no pulls, and the pulls of labels are
// all in their places, which are written last.
#include "kernels/cuda/divergences.cuh"
#include "kernels/cuda/labels.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// What a row's places have in common for one loss.
struct Term {
  Softmax p, q;               // at its temperature
  float mix;                  // the launch's, or found
  float factor, pulls, tail;  // tail: labels.cuh
};

// A row's losses are terms[0] and terms[1], whose indices are known when this is compiled, so that all stays in registers.
template <class T, int kLanes>
struct Pair {
  const RowLosses& a;
  const Row<T, kLanes>& row;
  Term terms[kRowTerms] = {};
  Softmaxes labelled = {};          // what cross-entropy sees
  float mean = 0.0f, share = 0.0f;  // of the differences of logits; 1 / how many they are
  bool two_temperatures;

  __device__ Pair(const RowLosses& losses, const Row<T, kLanes>& of)
      : a(losses), row(of), two_temperatures(losses.terms[0].temperature != losses.terms[1].temperature) {
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k)
      if (on_labels(k)) labels(k).template draw<kLanes>();
  }
  __device__ RowLossKind kind(int k) const { return a.terms[k].kind; }
  __device__ bool on_labels(int k) const { return kind(k) == RowLossKind::kLabels; }
  __device__ Labels labels(int k) const {
    const int64_t before = k > 0 && on_labels(0) ? Labels::words(row.common) : 0;
    return Labels::of_row(a.terms[k].sparse, row.common, dynamic_shared<unsigned int>() + before);
  }

  template <int N>
  __device__ void get_both(int64_t i, float (&z)[N], float (&t)[N]) const {
    get(row.z + i, z);
    if (row.teacher != nullptr) get(row.teacher + i, t);
  }

  // The first pass. A temperature that both have is found once.
  __device__ void find_softmaxes() {
    const float cold[] = {kLog2E / a.terms[0].temperature, kLog2E / a.terms[1].temperature};
    const bool apart = row.labelled && (a.terms[0].temperature != 1.0f || row.common < row.vocabulary);
    const bool centres = kind(0) == RowLossKind::kLogitMse || kind(1) == RowLossKind::kLogitMse;
    Online mine[5];
    float differences[2] = {0.0f, 0.0f};
    sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
      float z[decltype(count)::value], t[decltype(count)::value] = {};
      get_both(i, z, t);
      mine[0].add(t, cold[0]);
      mine[1].add(z, cold[0]);
      if (two_temperatures) mine[2].add(t, cold[1]);
      if (two_temperatures) mine[3].add(z, cold[1]);
      if (apart) mine[4].add(z, kLog2E);
      if (centres) add_differences(z, t, differences);
    });
    if (apart)
      sweep<kLanes, false>(row.others(), [&](auto count, int64_t i) {
        float z[decltype(count)::value];
        get(row.z + i, z);
        mine[4].add(z, kLog2E);
      });
    Softmax s[5];
    joined<kLanes>(mine, {cold[0], cold[0], cold[1], cold[1], kLog2E}, s);
    terms[0].p = s[0], terms[0].q = s[1];
    terms[1].p = two_temperatures ? s[2] : s[0], terms[1].q = two_temperatures ? s[3] : s[1];
    labelled = {s[0], s[1], s[4], apart};
    if (centres) over_group<Sum, kLanes>(differences);
    share = 1.0f / differences[1], mean = differences[0] * share;
  }

  // Some losses look at their row before its places.
  __device__ void find_mixes() {
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k)
      terms[k].mix = kind(k) == RowLossKind::kAdaptiveKl
                         ? AdaptiveKl::mix_of(0.0f, row, terms[k].p, terms[k].q)
                         : a.terms[k].mix;
  }

  // Adds to the loss of a term what places i, i + 1, ... do, and sets their pulls.
  template <int N>
  __device__ void look(int k, const float (&z)[N], const float (&t)[N], const float (&p)[N],
                       const float (&q)[N], int64_t i, float& value, float (&pull)[N]) const {
    const Term& term = terms[k];
    if (on_labels(k)) {
      const unsigned int left_out = a.terms[k].sparse.rest != nullptr ? labels(k).from(i) : ~0u;
#pragma unroll
      for (int j = 0; j < N; ++j) value += (left_out >> j & 1) == 0 ? q[j] : 0.0f, pull[j] = 0.0f;
    } else if (kind(k) == RowLossKind::kLogitMse) {
#pragma unroll
      for (int j = 0; j < N; ++j) pull[j] = centred(z[j], t[j], mean), value += pull[j] * pull[j];
    } else {
      with_divergence(kind(k), [&](auto* typed) {
        const std::remove_pointer_t<decltype(typed)> loss{term.mix};
#pragma unroll
        for (int j = 0; j < N; ++j)
          loss(Place{p[j], q[j], term.p.log(t[j]), term.q.log(z[j])}, value, pull[j]);
      });
    }
  }
  // f(the number of the term, q, the pulls) of places i, i + 1, ...
  template <int N, class F>
  __device__ void look(const float (&z)[N], const float (&t)[N], int64_t i, float (&values)[kRowTerms],
                       F f) const {
    float p[N], q[N], pull[N];
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k) {
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (k == 0 || two_temperatures)
          p[j] = terms[k].p.probability(t[j]), q[j] = terms[k].q.probability(z[j]);
      look(k, z, t, p, q, i, values[k], pull);
      f(k, q, pull);
    }
  }

  // The second pass. Writes the losses, and finds what the gradient wants to know.
  __device__ void find_losses() {
    float values[kRowTerms] = {}, pulls[kRowTerms] = {}, logs[kRowTerms] = {};
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k)
      if (on_labels(k))  // their weights stand in the pulls' place
        labels(k).template weigh<kLanes>(row.z, terms[k].q, pulls[k], logs[k]);
    sweep<kLanes, true>(row.compared(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float z[N], t[N] = {};
      get_both(i, z, t);
      look(z, t, i, values, [&](int k, const float(&)[N], const float(&pull)[N]) {
#pragma unroll
        for (int j = 0; j < N; ++j) pulls[k] += pull[j];
      });
    });
    float sums[] = {values[0], pulls[0], logs[0], values[1], pulls[1], logs[1]};
    over_group<Sum, kLanes>(sums);
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k)
      row.write_loss(a.terms[k], finish(k, sums[3 * k], sums[3 * k + 1], sums[3 * k + 2]));
    row.write_cross_entropy(a, labelled.of_label());
  }
  __device__ float finish(int k, float value, float pulls, float logs) {
    const RowTerm& of = a.terms[k];
    Term& term = terms[k];
    const float square = of.temperature * of.temperature;
    term.factor = of.weight * of.temperature;
    if (on_labels(k)) {
      const Balance balanced = balance(of.sparse, pulls, logs, value);
      term.tail = balanced.tail, term.pulls = balanced.tail - balanced.mass;
      return square * balanced.loss + 0.0f * term.q.log2_total;
    }
    if (kind(k) == RowLossKind::kLogitMse) {
      term.factor = of.weight * 2.0f * share;
      return value * share;
    }
    term.pulls = kind(k) == RowLossKind::kForwardKl ? ForwardKl::kPulls : pulls;
    return square * value + 0.0f * (term.p.log2_total + term.q.log2_total);
  }

  // Of both and cross-entropy at places i, i + 1, ... that are no labels.
  template <int N>
  __device__ void gradient(const float (&z)[N], const float (&t)[N], int64_t i, float (&out)[N]) const {
    float unused[kRowTerms] = {};
    look(z, t, i, unused, [&](int k, const float(&q)[N], const float(&pull)[N]) {
#pragma unroll
      for (int j = 0; j < N; ++j) out[j] += terms[k].factor * (pull[j] - q[j] * terms[k].pulls);
    });
    row.add_cross_entropy(labelled, z, i, out);
  }

  // The third pass. The logits of labels stay for write_labels().
  __device__ void write_gradient() const {
    sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float z[N], t[N] = {}, out[N] = {};
      get_both(i, z, t);
      gradient(z, t, i, out);
#pragma unroll
      for (int k = 0; k < kRowTerms; ++k) {
        const unsigned int label = on_labels(k) ? labels(k).from(i) : 0u;
#pragma unroll
        for (int j = 0; j < N; ++j) out[j] = (label >> j & 1) != 0 ? z[j] : out[j];
      }
      put_stream(row.z + i, out);
    });
    row.write_others(labelled);
  }
  __device__ void write_labels() const {
    if (!on_labels(0) && !on_labels(1)) return;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k) {
      if (!on_labels(k)) continue;
#pragma unroll 1
      for (int64_t n = threadIdx.x; n < labels(k).count; n += kLanes) {
        if (labels(k).weight_of(n) <= 0.0f) continue;
        const int64_t i = labels(k).ids[n];
        if (k == 0 || !on_labels(0) || !labels(0).holds(i)) write_label(i);
      }
    }
  }
  __device__ void write_label(int64_t i) const {
    float z[1], t[1] = {}, out[1] = {};
    get_both(i, z, t);
    gradient(z, t, i, out);
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k)
      if (on_labels(k) && labels(k).holds(i))
        out[0] += terms[k].factor * (terms[k].q.probability(z[0]) * terms[k].tail - labels(k).weight_at(i));
    put(row.z + i, out);
  }
};

template <class T, int kLanes>
__global__ void __launch_bounds__(kLanes, 1) pair_kernel(RowLosses a) {
  const Row<T, kLanes> row(a);
  if (row.kind == Label::kIgnored) return row.leave_out(a);
  Pair<T, kLanes> pair(a, row);
  pair.find_softmaxes();
  pair.find_mixes();
  pair.find_losses();
  if (!a.gradient) return;
  pair.write_gradient();
  pair.write_labels();
}

}  // namespace

void row_pairs(Element element, const RowLosses& losses, Stream stream) {
  RowLosses pair = losses;
  size_t maps = 0;
  for (int k = 0; k < kRowTerms; ++k) {
    // It has no temperature: with the other's there is one less to find.
    if (pair.terms[k].kind == RowLossKind::kLogitMse)
      pair.terms[k].temperature = losses.terms[1 - k].temperature;
    if (pair.terms[k].kind == RowLossKind::kLabels)
      maps += static_cast<size_t>(Labels::words(losses.common)) * sizeof(unsigned int);
  }
  with_row_kernel(element, losses.vocabulary, [&](auto* typed, auto lanes) {
    using T = std::remove_pointer_t<decltype(typed)>;
    constexpr int kLanes =
        decltype(lanes)::value < 512 ? decltype(lanes)::value : 512;  // for the registers of two
    launch(pair_kernel<T, kLanes>, {static_cast<unsigned int>(losses.rows), kLanes, maps}, stream, pair);
  });
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
