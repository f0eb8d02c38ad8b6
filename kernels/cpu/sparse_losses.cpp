// Cross-entropy against few labels a row: a softmax, and a sparse subtraction.
#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

constexpr float kLeastTail = 0x1p-24f;  // of the student's mass outside the labels: below it is rounding

float exp_of(float x) { return exp(splat(x))[0]; }

// sum_k w_k and sum_k w_k a_k, a the tempered logits below their maximum.
struct Weighed {
  double mass = 0, logits = 0;
};

void sparse_cross_entropy(const SparseRows& rows, const float* z, const int64_t* ids, const float* weights,
                          const float* rest, double* loss, float* gradient, float* scratch) {
  const float cold = 1.0f / rows.temperature;
  const double square = static_cast<double>(rows.temperature) * rows.temperature;
  for (int64_t row = 0; row < rows.rows;
       ++row, z += rows.stride, ids += rows.labels, weights += rows.labels) {
    const float top = row_max(z, rows.vocabulary);
    Vec sums[4] = {};
    sweep(rows.vocabulary, [&](int64_t i, int k, auto part) {
      const Vec e = exp((part.get(z + i, -kInfinity) - top) * cold);
      sums[k] += e;
      part.put(scratch + i, e);
    });
    const float total = sum(sums);
    const double log_total = __builtin_log(static_cast<double>(total));
    Weighed labels;
    for (int64_t k = 0; k < rows.labels; ++k) {
      const double a = (static_cast<double>(z[ids[k]]) - top) * cold;
      labels.mass += static_cast<double>(weights[k]);
      if (weights[k] > 0.0f) labels.logits += static_cast<double>(weights[k]) * a;
    }
    double of_row = labels.mass * log_total - labels.logits;
    float mass = static_cast<float>(labels.mass), outside = 0.0f;  // in units of 1 / total, 1 / tail
    if (rest != nullptr) {
      for (int64_t k = 0; k < rows.labels; ++k)
        if (weights[k] > 0.0f) scratch[ids[k]] = 0.0f;
      Vec tails[4] = {};
      sweep(rows.vocabulary, [&](int64_t i, int k, auto part) { tails[k] += part.get(scratch + i); });
      const float tail = sum(tails);
      const bool clear = tail > kLeastTail * total;
      const double log_tail = __builtin_log(static_cast<double>(clear ? tail : kLeastTail * total));
      of_row += static_cast<double>(rest[row]) * (log_total - log_tail);
      if (clear) mass += rest[row], outside = rest[row] / tail;
    }
    loss[row] = square * of_row;
    if (gradient == nullptr) continue;
    const float factor = rows.scale * rows.temperature, share = mass / total;
    sweep(rows.vocabulary, [&](int64_t i, int, auto part) {
      part.put(gradient + i, part.get(gradient + i) + part.get(scratch + i) * ((share - outside) * factor));
    });
    for (int64_t k = 0; k < rows.labels; ++k) {
      if (weights[k] <= 0.0f) continue;
      const float inside = rest == nullptr ? 0.0f : exp_of((z[ids[k]] - top) * cold) * share;
      gradient[ids[k]] += (inside - weights[k]) * factor;
    }
    gradient += rows.stride;
  }
}

}  // namespace

void add_sparse_losses(Table& table) { table.sparse_cross_entropy = sparse_cross_entropy; }

}  // namespace retort::kernels::cpu::RETORT_ISA
