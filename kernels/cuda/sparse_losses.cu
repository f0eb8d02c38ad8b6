// Cross-entropy against few labels a row (kernels/sparse_losses.h). A map in shared memory, a bit a column,
// knows the labels: the mass outside of them is summed without them, and their gradients are written last,
// each by one thread, whatever else is in their runs.
#include "kernels/cuda/row_losses.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

constexpr float kLeastTail = 0x1p-24f;  // of the student's mass outside the labels: below it is rounding

// The labels of one row.
struct Labels {
  const int64_t* ids;
  const float* weights;
  int64_t count;
  unsigned int* map;

  // Whether each of the columns i, i + 1, ... is a label, as bits.
  __device__ unsigned int from(int64_t i) const {
    return __funnelshift_r(map[i / 32], map[i / 32 + 1], static_cast<unsigned int>(i % 32));
  }
  __device__ static int64_t words(int64_t columns) { return columns / 32 + 2; }

  template <int kLanes>
  __device__ void draw(int64_t columns) const {
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < words(columns); i += kLanes) map[i] = 0;
    __syncthreads();
#pragma unroll 1
    for (int64_t k = threadIdx.x; k < count; k += kLanes)
      if (weights[k] > 0.0f) atomicOr(map + ids[k] / 32, 1u << (ids[k] % 32));
    __syncthreads();
  }
  // The weight of all labels that are the k-th's id, or 0 where one before has it.
  __device__ float weight_of(int64_t k) const {
    if (weights[k] <= 0.0f) return 0.0f;
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t other = 0; other < count; ++other) {
      if (ids[other] != ids[k] || weights[other] <= 0.0f) continue;
      if (other < k) return 0.0f;
      sum += weights[other];
    }
    return sum;
  }
};

// The row's sums: of the weights, of the weights times log q, and of q outside of the labels.
struct Weighed {
  float weights, logs, outside;
};
template <class T, int kLanes>
__device__ Weighed weigh(const Row<T, kLanes>& row, const Labels& labels, const Softmax& q, bool rest) {
  float sums[3] = {0.0f, 0.0f, 0.0f};
#pragma unroll 1
  for (int64_t k = threadIdx.x; k < labels.count; k += kLanes) {
    const float weight = labels.weights[k];
    sums[0] += weight;
    if (weight > 0.0f) sums[1] += weight * q.log(to_float(row.z[labels.ids[k]]));
  }
  if (rest)
    sweep<kLanes, true>(row.compared(), [&](auto count, int64_t i) {
      constexpr int N = decltype(count)::value;
      float z[N];
      get(row.z + i, z);
      const unsigned int label = labels.from(i);
#pragma unroll
      for (int j = 0; j < N; ++j) sums[2] += (label >> j & 1) == 0 ? q.probability(z[j]) : 0.0f;
    });
  over_group<Sum, kLanes>(sums);
  return {sums[0], sums[1], sums[2]};
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
__global__ void __launch_bounds__(kLanes, 1) sparse_kernel(RowLosses a, SparseRows sparse) {
  const Row<T, kLanes> row(a);
  if (row.kind == Label::kIgnored) return row.leave_out(a);
  const int64_t first = blockIdx.x * sparse.labels;
  const Labels labels{sparse.ids + first, sparse.weights + first, sparse.labels,
                      dynamic_shared<unsigned int>()};
  labels.draw<kLanes>(row.common);
  const Softmaxes s = softmaxes_of<false>(row, a.temperature);
  const bool with_rest = sparse.rest != nullptr;
  const Weighed sums = weigh(row, labels, s.q, with_rest);
  const bool clear = with_rest && sums.outside > kLeastTail;
  const float rest = with_rest ? sparse.rest[blockIdx.x] : 0.0f;
  const float of_rest = with_rest ? rest * logf(clear ? sums.outside : kLeastTail) : 0.0f;
  const float square = a.temperature * a.temperature, broken = 0.0f * s.q.log2_total;
  row.write_losses(a, -square * (sums.logs + of_rest) + broken, s.of_label());
  if (!a.gradient) return;
  const float factor = a.weight * a.temperature, mass = sums.weights + (clear ? rest : 0.0f);
  write_outside(row, labels, s, factor * (mass - (clear ? rest / sums.outside : 0.0f)));
  __syncthreads();
  write_labels(row, labels, s, factor * mass, factor);
}

void sparse_losses(Element element, const RowLosses& losses, const SparseRows& sparse, Stream stream) {
  if (losses.rows == 0) return;
  with_row_kernel(element, losses.vocabulary, [&](auto* typed, auto lanes) {
    using T = std::remove_pointer_t<decltype(typed)>;
    constexpr int kLanes = decltype(lanes)::value;
    const size_t map = static_cast<size_t>(losses.common / 32 + 2) * sizeof(unsigned int);
    launch(sparse_kernel<T, kLanes>, {static_cast<unsigned int>(losses.rows), kLanes, map}, stream, losses,
           sparse);
  });
}

}  // namespace

void add_sparse_losses(Table& table) { table.sparse_losses = sparse_losses; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
