// The losses on rows of logits, from one template. A block takes a row: the statistics of both softmaxes come
// from one pass over the logits, what a loss adds to its value at each place from a second, and the gradient
// from the same one where the loss knows sum_j q_j dD/dq_j before, else from a third. Only the first pass need
// reach the memory: the others run against its direction and find what it read last in the cache.
//
// d/dz_j of a divergence D(p, q), q = softmax(z / T), times T^2: T (pull_j - q_j sum_i pull_i), where
// pull_j = q_j dD/dq_j. Cross-entropy beside it shares the reads. Each loss has a kernel of its own, and all pairs of them
// one together (row_pairs.cu).
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/exp2.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;
constexpr int64_t kIgnored = -100;  // kernels/linear_loss.h

// --- passes over a row

// How a row is cut: runs of kRun from `head` on, which lies at a multiple of 16 bytes, single elements around.
struct Cut {
  int64_t begin, head, tail, end;
};
// Of columns begin .. end of a row at p; one by one unless `runs`.
template <class T>
__device__ Cut cut(const T* p, int64_t begin, int64_t end, bool runs) {
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(p + begin) % 16 / sizeof(T));
  const int64_t to_head = past == 0 ? 0 : 16 / static_cast<int64_t>(sizeof(T)) - past;
  const int64_t head = runs && begin + to_head < end ? begin + to_head : end;
  return {begin, head, head + (end - head) / kRun * kRun, end};
}

// f(count, i) for this thread's single elements of a row, around its runs.
template <int kLanes, class F>
__device__ void around_runs(const Cut& c, F f) {
  const int64_t gap = c.tail - c.head;
#pragma unroll 1
  for (int64_t i = c.begin + threadIdx.x; i < c.end - gap; i += kLanes)
    f(std::integral_constant<int, 1>(), i < c.head ? i : i + gap);
}

// f(count, i) for this thread's parts of a row: `count` elements from i on, kRun or 1. Upwards or downwards; upwards
// with kAtOnce runs on their way at a time.
template <int kLanes, bool kDown, int kAtOnce = 1, class F>
__device__ void sweep(const Cut& c, F f) {
  constexpr int64_t kStride = int64_t{kLanes} * kRun;
  const int64_t first = c.head + static_cast<int64_t>(threadIdx.x) * kRun;
  if constexpr (kDown) {
    if (first < c.tail)
#pragma unroll 1
      for (int64_t i = first + (c.tail - 1 - first) / kStride * kStride; i >= first; i -= kStride)
        f(std::integral_constant<int, kRun>(), i);
    around_runs<kLanes>(c, f);
  } else {
    around_runs<kLanes>(c, f);
#pragma unroll(kAtOnce)
    for (int64_t i = first; i < c.tail; i += kStride) f(std::integral_constant<int, kRun>(), i);
  }
}

// The same downwards over one row, f(x, i) with the elements that lie there. What f writes holds up no load: two runs
// are read before either is given to it.
template <int kLanes, class T, class F>
__device__ void rewrite(const Cut& c, const T* p, F f) {
  constexpr int64_t kStride = int64_t{kLanes} * kRun;
  const int64_t first = c.head + static_cast<int64_t>(threadIdx.x) * kRun;
  if (first < c.tail)
#pragma unroll 1
    for (int64_t i = first + (c.tail - 1 - first) / kStride * kStride; i >= first; i -= 2 * kStride) {
      float x[kRun], below[kRun];
      const bool two = i - kStride >= first;
      get(p + i, x);
      if (two) get(p + i - kStride, below);
      f(x, i);
      if (two) f(below, i - kStride);
    }
  around_runs<kLanes>(c, [&](auto, int64_t i) {
    float x[1];
    get(p + i, x);
    f(x, i);
  });
}

// --- softmax

// One row's softmax(z / T), found run by run: the sum of 2^(cold z - shift), cold = log2(e) / T, under the
// largest cold z so far. Every shift is that product, rounded, so that shifts cancel when sums are joined.
struct Online {
  float shift = -INFINITY, total = 0.0f;
  template <int N>
  __device__ void add(const float (&z)[N], float cold) {
    float most = z[0];
#pragma unroll
    for (int j = 1; j < N; ++j) most = fmaxf(most, z[j]);
    const float top = __fmul_rn(most, cold);
    if (top > shift) {
      total *= exp2_or_zero(shift - top);
      shift = top;
    }
    if (shift == -INFINITY && most == most) return;  // masked logits: -inf minus -inf is no number
#pragma unroll
    for (int j = 0; j < N; ++j) total += exp2_or_zero(fmaf(z[j], cold, -shift));
  }
};

// e^(z / T - log total) for any z of the row.
struct Softmax {
  float cold, shift, share, log2_total;
  __device__ float below_top(float z) const { return fmaf(z, cold, -shift); }  // in powers of two
  __device__ float probability(float z) const { return exp2_or_zero(below_top(z)) * share; }
  __device__ float log(float z) const { return (below_top(z) - log2_total) * kLn2; }
};

// Joins the threads' statistics of n softmaxes.
template <int kLanes, int n>
__device__ void joined(const Online (&mine)[n], const float (&cold)[n], Softmax (&of_row)[n]) {
  float shifts[n], totals[n];
#pragma unroll
  for (int s = 0; s < n; ++s) shifts[s] = mine[s].shift;
  over_group<Max, kLanes>(shifts);
#pragma unroll
  for (int s = 0; s < n; ++s) {
    const float total = mine[s].total;  // a NaN stays one
    totals[s] = total == 0.0f ? 0.0f : total * exp2_or_zero(mine[s].shift - shifts[s]);
  }
  over_group<Sum, kLanes>(totals);
#pragma unroll
  for (int s = 0; s < n; ++s) of_row[s] = {cold[s], shifts[s], 1.0f / totals[s], log2f(totals[s])};
}

// What the losses of a row divide by: the teacher's softmax, the student's at the same temperature, and the
// student's over all columns untempered, as cross-entropy sees it, where that is another.
struct Softmaxes {
  Softmax p, q, plain;
  bool apart;
  __device__ Softmax of_label() const { return apart ? plain : q; }
};

// --- a row

enum class Label { kGiven, kIgnored, kUnknown, kNone };

// A row, and cross-entropy's part of its losses.
template <class T, int kLanes>
struct Row {
  T* z;
  const T* teacher;
  int64_t vocabulary, common, label;
  Label kind;
  float cross_entropy, at_label;  // its weight; the label's logit
  bool labelled, runs;            // whether there is cross-entropy; whether runs fit both rows

  __device__ explicit Row(const RowLosses& a)
      : z(static_cast<T*>(a.student) + blockIdx.x * a.student_stride),
        teacher(a.teacher == nullptr ? nullptr
                                     : static_cast<const T*>(a.teacher) + blockIdx.x * a.teacher_stride),
        vocabulary(a.vocabulary),
        common(a.common),
        label(a.labels == nullptr ? -1 : a.labels[blockIdx.x]),
        kind(a.labels == nullptr                ? Label::kNone
             : label == kIgnored                ? Label::kIgnored
             : label >= 0 && label < vocabulary ? Label::kGiven
                                                : Label::kUnknown),
        cross_entropy(a.cross_entropy),
        at_label(kind == Label::kGiven ? to_float(z[label]) : NAN),
        labelled(a.cross_entropy_of != nullptr),
        runs(teacher == nullptr ||
             (reinterpret_cast<uintptr_t>(z) - reinterpret_cast<uintptr_t>(teacher)) % 16 == 0) {}

  __device__ Cut all() const { return cut(z, 0, vocabulary, runs); }
  __device__ Cut compared() const { return cut(z, 0, common, runs); }
  __device__ Cut others() const { return cut(z, common, vocabulary, runs); }

  // What cross-entropy adds to the gradient at places i, i + 1, ... The label is compared in 64 bits once, not at each.
  template <int N>
  __device__ void add_cross_entropy(const Softmax& s, const float (&x)[N], int64_t i, float (&out)[N]) const {
    const int here = label >= i && label < i + N ? static_cast<int>(label - i) : N;
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] += cross_entropy * (s.probability(x[j]) - (j == here ? 1.0f : 0.0f));
  }
  template <int N>
  __device__ void add_cross_entropy(const Softmaxes& s, const float (&x)[N], int64_t i,
                                    float (&out)[N]) const {
    if (labelled && s.apart) add_cross_entropy(s.plain, x, i, out);
    if (labelled && !s.apart) add_cross_entropy(s.q, x, i, out);
  }
  // The gradient beyond the common columns: cross-entropy's alone.
  __device__ void write_others(const Softmaxes& s) const {
    sweep<kLanes, false>(others(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float x[N], out[N] = {};
      get(z + i, x);
      add_cross_entropy(s, x, i, out);
      put_stream(z + i, out);
    });
  }
  __device__ static void write_loss(const RowTerm& term, float loss) {
    if (threadIdx.x == 0) term.loss_of[blockIdx.x] = loss;
  }
  // A row without the label that it should have gets NaN.
  __device__ void write_cross_entropy(const RowLosses& a, const Softmax& s) const {
    if (threadIdx.x == 0 && labelled)
      a.cross_entropy_of[blockIdx.x] = (s.log2_total - s.below_top(at_label)) * kLn2;
  }
  // A row that does not count.
  __device__ void leave_out(const RowLosses& a) const {
    if (threadIdx.x == 0 && a.cross_entropy_of != nullptr) a.cross_entropy_of[blockIdx.x] = 0.0f;
#pragma unroll
    for (int k = 0; k < kRowTerms; ++k)
      if (k < a.count) write_loss(a.terms[k], 0.0f);
    if (!a.gradient) return;
    sweep<kLanes, false>(all(), [&](auto count, int64_t i) {
      float zero[decltype(count)::value] = {};
      put_stream(z + i, zero);
    });
  }
};

// The first pass. Without kTeacher, p is left out.
template <bool kTeacher, class T, int kLanes>
__device__ Softmaxes softmaxes_of(const Row<T, kLanes>& row, float temperature) {
  const float cold = kLog2E / temperature;
  const bool apart = row.labelled && (temperature != 1.0f || row.common < row.vocabulary);
  Online mine[3];
  sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
    float z[decltype(count)::value];
    get(row.z + i, z);
    if constexpr (kTeacher) {
      float t[decltype(count)::value];
      get(row.teacher + i, t);
      mine[0].add(t, cold);
    }
    mine[1].add(z, cold);
    if (apart) mine[2].add(z, kLog2E);
  });
  if (apart)
    sweep<kLanes, false>(row.others(), [&](auto count, int64_t i) {
      float z[decltype(count)::value];
      get(row.z + i, z);
      mine[2].add(z, kLog2E);
    });
  Softmax s[3];
  joined<kLanes>(mine, {cold, cold, kLog2E}, s);
  return {s[0], s[1], s[2], apart};
}

// What a divergence sees of a place.
struct Place {
  float p, q, log_p, log_q;
};
__device__ inline Place place_of(const Softmaxes& s, float teacher, float student) {
  return {s.p.probability(teacher), s.q.probability(student), s.p.log(teacher), s.q.log(student)};
}

constexpr float kLeast = 1.17549435e-38f;  // the least normal number: what has less counts as nothing
constexpr float kLogFloor = -87.0f;        // log p where p is too small to be told from 0

// log(a / m), finite for every a <= m.
__device__ inline float log_ratio(float a, float m) {
  return logf(fmaxf(__fdividef(a, fmaxf(m, kLeast)), kLeast));
}

// The sum of a row's differences of logits, and how many: ids that the teacher rules out (-infinity) are left out.
template <int N>
__device__ void add_differences(const float (&z)[N], const float (&t)[N], float (&sums)[2]) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const bool inside = t[j] != -INFINITY;
    sums[0] += inside ? z[j] - t[j] : 0.0f;
    sums[1] += inside ? 1.0f : 0.0f;
  }
}
// The difference from their mean.
__device__ inline float centred(float z, float t, float mean) { return t != -INFINITY ? z - t - mean : 0.0f; }

// --- the kernel of a divergence. Loss{mix} is a function of a Place that adds to the value and sets the pull, its mix a
// number of the launch or of the row (mix_of); kPulls: the pulls' sum, or NAN where it must be found.

// The gradient at places i, i + 1, ... whose pulls are known.
template <class T, int kLanes, int N>
__device__ void write_gradient(const Row<T, kLanes>& row, const Softmaxes& s, float factor,
                               const float (&z)[N], const float (&pull)[N], float pulls, int64_t i) {
  float out[N];
#pragma unroll
  for (int j = 0; j < N; ++j) out[j] = factor * (pull[j] - s.q.probability(z[j]) * pulls);
  row.add_cross_entropy(s, z, i, out);
  put_stream(row.z + i, out);
}

template <class Loss, class T, int kLanes>
__global__ void __launch_bounds__(kLanes, 1) divergence_kernel(RowLosses a) {
  const Row<T, kLanes> row(a);
  if (row.kind == Label::kIgnored) return row.leave_out(a);
  const RowTerm& term = a.terms[0];
  const Softmaxes s = softmaxes_of<true>(row, term.temperature);
  const Loss loss{Loss::mix_of(term.mix, row, s.p, s.q)};
  const float factor = term.weight * term.temperature;
  constexpr bool kKnown = Loss::kPulls == Loss::kPulls;
  float sums[2] = {0.0f, 0.0f};  // of the value, of the pulls
  sweep<kLanes, true>(row.compared(), [&](auto count, int64_t i) {
    constexpr int N = decltype(count)::value;
    float z[N], t[N], pull[N];
    get(row.z + i, z);
    get(row.teacher + i, t);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      loss(place_of(s, t[j], z[j]), sums[0], pull[j]);
      if constexpr (!kKnown) sums[1] += pull[j];
    }
    if constexpr (kKnown)
      if (a.gradient) write_gradient(row, s, factor, z, pull, Loss::kPulls, i);
  });
  over_group<Sum, kLanes>(sums);
  // Comparisons hide a logit that is no number; the sums of exponentials show it.
  const float broken = 0.0f * (s.p.log2_total + s.q.log2_total);
  row.write_loss(term, term.temperature * term.temperature * sums[0] + broken);
  row.write_cross_entropy(a, s.of_label());
  if (!a.gradient) return;
  if constexpr (!kKnown)
    sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float z[N], t[N], pull[N], unused = 0.0f;
      get(row.z + i, z);
      get_stream(row.teacher + i, t);
#pragma unroll
      for (int j = 0; j < N; ++j) loss(place_of(s, t[j], z[j]), unused, pull[j]);
      write_gradient(row, s, factor, z, pull, sums[1], i);
    });
  row.write_others(s);
}

// --- on the host

constexpr int64_t kLongRow = 1 << 13;  // from here on a block has more threads
constexpr int kShortLanes = 256;
template <class T>
constexpr int kLongLanes = sizeof(T) == 4 ? 512 : 1024;  // a run of f32 takes more registers

// Calls f(typed null pointer, lanes) with what a kernel's template wants.
template <class F>
void with_row_kernel(Element element, int64_t vocabulary, F f) {
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    if (vocabulary < kLongRow)
      f(typed, std::integral_constant<int, kShortLanes>());
    else
      f(typed, std::integral_constant<int, kLongLanes<T>>());
  });
}

// Each in the file of its name: one divergence, one loss on labels, two of any.
void divergences(Element element, const RowLosses& losses, Stream stream);
void sparse_losses(Element element, const RowLosses& losses, Stream stream);
void row_pairs(Element element, const RowLosses& losses, Stream stream);

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
