// Cross-entropy against few labels a row.
#include "kernels/cuda/labels.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// The row's sums: of the weights, of the weights times log q, and of q outside of the labels.
template <class T, int kLanes>
__device__ Balance weigh(const Row<T, kLanes>& row, const Labels& labels, const Softmax& q,
                         const SparseRows& sparse) {
  float sums[3] = {0.0f, 0.0f, 0.0f};
  labels.template weigh<kLanes>(row.z, q, sums[0], sums[1]);
  if (sparse.rest != nullptr)
    sweep<kLanes, true>(row.compared(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float z[N];
      get(row.z + i, z);
      const unsigned int label = labels.from(i);
#pragma unroll
      for (int j = 0; j < N; ++j) sums[2] += (label >> j & 1) == 0 ? q.probability(z[j]) : 0.0f;
    });
  over_group<Sum, kLanes>(sums);
  return balance(sparse, sums[0], sums[1], sums[2]);
}

// Of all places but the labels, whose logits stay for write_labels.
template <class T, int kLanes>
__device__ void write_outside(const Row<T, kLanes>& row, const Labels& labels, const Softmaxes& s,
                              float share) {
  sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
    constexpr int N = decltype(count)::value;
    float z[N], out[N];
    get(row.z + i, z);
    const unsigned int label = labels.from(i);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = s.q.probability(z[j]) * share;
    row.add_cross_entropy(s, z, i, out);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = (label >> j & 1) != 0 ? z[j] : out[j];
    put(row.z + i, out);
  });
  row.write_others(s);
}

template <class T, int kLanes>
__device__ void write_labels(const Row<T, kLanes>& row, const Labels& labels, const Softmaxes& s, float share,
                             float factor) {
#pragma unroll 1
  for (int64_t k = threadIdx.x; k < labels.count; k += kLanes) {
    const float weight = labels.weight_of(k);
    if (weight <= 0.0f) continue;
    const int64_t i = labels.ids[k];
    const float z[1] = {to_float(row.z[i])};
    float out[1] = {s.q.probability(z[0]) * share - factor * weight};
    row.add_cross_entropy(s, z, i, out);
    put(row.z + i, out);
  }
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kLanes, 1) sparse_kernel(RowLosses a) {
  const Row<T, kLanes> row(a);
  if (row.kind == Label::kIgnored) return row.leave_out(a);
  const RowTerm& term = a.terms[0];
  const Labels labels = Labels::of_row(term.sparse, row.common, dynamic_shared<unsigned int>());
  labels.template draw<kLanes>();
  const Softmaxes s = softmaxes_of<false>(row, term.temperature);
  const Balance sums = weigh(row, labels, s.q, term.sparse);
  row.write_loss(term, term.temperature * term.temperature * sums.loss + 0.0f * s.q.log2_total);
  row.write_cross_entropy(a, s.of_label());
  if (!a.gradient) return;
  const float factor = term.weight * term.temperature;
  write_outside(row, labels, s, factor * (sums.mass - sums.tail));
  __syncthreads();
  write_labels(row, labels, s, factor * sums.mass, factor);
}

}  // namespace

void sparse_losses(Element element, const RowLosses& losses, Stream stream) {
  with_row_kernel(element, losses.vocabulary, [&](auto* typed, auto lanes) {
    using T = std::remove_pointer_t<decltype(typed)>;
    constexpr int kLanes = decltype(lanes)::value;
    const size_t map = static_cast<size_t>(Labels::words(losses.common)) * sizeof(unsigned int);
    launch(sparse_kernel<T, kLanes>, {static_cast<unsigned int>(losses.rows), kLanes, map}, stream, losses);
  });
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
