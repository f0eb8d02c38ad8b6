// Few labels a row, and the rest of their mass (kernels/sparse_losses.h).
#pragma once

#include "kernels/cuda/row_losses.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

constexpr float kLeastTail = 0x1p-24f;  // of the student's mass outside the labels: below it is rounding

// The labels of one row. A map in shared memory, a bit a column, knows them: the mass outside of them is summed without
// them, and their gradients are written last, each by one thread, whatever else is in their runs. An id outside of the columns,
// which the CPU refuses, makes the row's loss NaN and touches nothing.
struct Labels {
  const int64_t* ids;
  const float* weights;
  int64_t count, columns;
  unsigned int* map;

  __device__ static Labels of_row(const SparseRows& rows, int64_t columns, unsigned int* map) {
    const int64_t first = blockIdx.x * rows.labels;
    return {rows.ids + first, rows.weights + first, rows.labels, columns, map};
  }
  __device__ bool is_column(int64_t k) const { return ids[k] >= 0 && ids[k] < columns; }
  // Whether each of the columns i, i + 1, ... is a label, as bits.
  __device__ unsigned int from(int64_t i) const {
    return __funnelshift_r(map[i / 32], map[i / 32 + 1], static_cast<unsigned int>(i % 32));
  }
  __host__ __device__ static int64_t words(int64_t columns) { return columns / 32 + 2; }

  template <int kLanes>
  __device__ void draw() const {
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < words(columns); i += kLanes) map[i] = 0;
    __syncthreads();
#pragma unroll 1
    for (int64_t k = threadIdx.x; k < count; k += kLanes)
      if (weights[k] > 0.0f && is_column(k)) atomicOr(map + ids[k] / 32, 1u << (ids[k] % 32));
    __syncthreads();
  }
  __device__ bool holds(int64_t i) const { return (map[i / 32] >> (i % 32) & 1) != 0; }
  // The weight of an id that has labels.
  __device__ float weight_at(int64_t id) const {
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t k = 0; k < count; ++k)
      if (ids[k] == id && weights[k] > 0.0f) sum += weights[k];
    return sum;
  }
  // The weight of all labels that are the k-th's id, or 0 where one before has it, or where it is no column.
  __device__ float weight_of(int64_t k) const {
    if (weights[k] <= 0.0f || !is_column(k)) return 0.0f;
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t other = 0; other < count; ++other) {
      if (ids[other] != ids[k] || weights[other] <= 0.0f) continue;
      if (other < k) return 0.0f;
      sum += weights[other];
    }
    return sum;
  }
  // Adds this thread's part of the weights, and of the weights times log q.
  template <int kLanes, class T>
  __device__ void weigh(const T* z, const Softmax& q, float& all, float& logs) const {
#pragma unroll 1
    for (int64_t k = threadIdx.x; k < count; k += kLanes) {
      all += weights[k];
      if (weights[k] > 0.0f) logs += is_column(k) ? weights[k] * q.log(to_float(z[ids[k]])) : NAN;
    }
  }
};

// What the labels of a row, the rest of their weight and the student's mass outside of them come to.
struct Balance {
  float loss;  // less T^2
  float mass;  // of the weights that have a gradient
  float tail;  // the rest's weight over the mass outside; 0 without a rest, and where that mass is rounding
};
__device__ inline Balance balance(const SparseRows& rows, float weights, float logs, float outside) {
  if (rows.rest == nullptr) return {-logs, weights, 0.0f};
  const bool clear = outside > kLeastTail;
  const float rest = rows.rest[blockIdx.x];
  return {-(logs + rest * logf(clear ? outside : kLeastTail)), weights + (clear ? rest : 0.0f),
          clear ? rest / outside : 0.0f};
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
