#include "distill/labels.h"

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/random.h"
#include "core/upload.h"

namespace retort::distill {

namespace {

// In one order: on a device LibTorch's running sum of a single row has none, that of several has.
at::Tensor running_sums(const at::Tensor& p_CU) {
  if (p_CU.is_cpu() || p_CU.size(0) > 1) return p_CU.cumsum(1);
  return p_CU.expand({2, -1}).cumsum(1).narrow(0, 0, 1);
}

}  // namespace

at::Tensor softened(const at::Tensor& logits_CU, double temperature) {
  check(logits_CU.defined(), "[distill] the loss needs a teacher's labels or logits, got none");
  const bool bf16 = logits_CU.scalar_type() == at::kBFloat16;
  return at::softmax((bf16 ? logits_CU.to(at::kFloat) : logits_CU) / temperature, 1);
}

kernels::SparseLabels draw_labels(const at::Tensor& p_CU, int64_t draws, uint64_t seed,
                                  const at::Tensor& places_C) {
  check<ConfigError>(places_C.defined(),
                     "[distill] draws from a live teacher need batches with places in the corpus");
  const int64_t rows = p_CU.size(0);
  const at::Tensor places = places_C.cpu().contiguous();
  const at::Tensor points_CK = at::empty({rows, draws}, at::kDouble);
  auto point = host_values<double>(points_CK).begin();
  for (const int64_t place : host_values<const int64_t>(places)) {
    const Random random(seed, "capture", 0, static_cast<uint64_t>(place));
    for (int64_t i = 0; i < draws; ++i) *point++ = random.uniform(static_cast<uint64_t>(i));
  }
  // A point belongs to the first id whose running sum is above it, so an id of probability 0 is never drawn.
  const at::Tensor sums_CU = running_sums(p_CU.to(at::kDouble));
  const at::Tensor scaled_CK = upload(points_CK, p_CU.device()) * sums_CU.narrow(1, p_CU.size(1) - 1, 1);
  const at::Tensor ids_CK = at::searchsorted(sums_CU, scaled_CK, false, /*right=*/true);
  return {ids_CK.clamp_max(p_CU.size(1) - 1),
          at::full({rows, draws}, 1.0 / static_cast<double>(draws), p_CU.options()),
          {}};
}

kernels::SparseLabels top_labels(const kernels::LogitRows& rows, int64_t k, double temperature) {
  if (rows.sparse.defined()) {
    check(rows.sparse.rest_N.defined(), "[distill] the loss needs top-k labels with the mass of the rest");
    const int64_t all = rows.sparse.ids_NK.size(1);
    if (k == 0 || k >= all) return rows.sparse;
    const at::Tensor dropped = rows.sparse.weights_NK.narrow(1, k, all - k).sum(1);
    return {rows.sparse.ids_NK.narrow(1, 0, k), rows.sparse.weights_NK.narrow(1, 0, k),
            rows.sparse.rest_N + dropped};
  }
  const at::Tensor p_CU = softened(rows.teacher_CV, temperature);
  const auto [weights_CK, ids_CK] = at::topk(p_CU, std::min(k > 0 ? k : kTopK, p_CU.size(1)));
  return {ids_CK, weights_CK, (1.0 - weights_CK.sum(1)).clamp_min(0.0)};
}

}  // namespace retort::distill
