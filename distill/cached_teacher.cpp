// Caches in place of a teacher, one for each source of the batches: labels are read by each token's place in
// its corpus, and nothing is computed.
#include "core/error.h"
#include "core/upload.h"
#include "distill/teacher.h"

namespace retort::distill {
namespace {

using Caches = std::vector<std::shared_ptr<const TeacherCache>>;

class CachedTeacher final : public Teacher {
 public:
  explicit CachedTeacher(Caches caches) : caches_(std::move(caches)) {
    for (const auto& cache : caches_) {
      const CacheFacts& a = facts();
      const CacheFacts& b = cache->facts();
      check<ConfigError>(a.kind == b.kind && a.size == b.size && a.temperature == b.temperature &&
                             a.vocabulary == b.vocabulary,
                         "[distill] the caches of several sources must hold labels of the same kind, number, "
                         "temperature and "
                         "vocabulary; {} and {} differ",
                         caches_.front()->directory().string(), cache->directory().string());
    }
  }

  TeacherSignal signal(const data::Batch& batch, const std::vector<int64_t>&) override {
    check<InternalError>(batch.corpus_BT.defined(),
                         "[distill] a cache needs batches with places in the corpus");
    const at::Tensor places_N = batch.corpus_BT.flatten();
    kernels::SparseLabels labels = caches_.size() == 1 ? caches_.front()->read(places_N) : by_source(batch);
    for (at::Tensor* x : {&labels.ids_NK, &labels.weights_NK, &labels.rest_N})
      if (x->defined()) *x = upload(*x, batch.tokens_BT.device());
    return {.rows = {.labels = std::move(labels), .vocabulary = facts().vocabulary, .places_N = places_N}};
  }

  SignalKind kind() const override { return {facts().kind, facts().size, facts().temperature}; }
  int64_t vocabulary() const override { return facts().vocabulary; }

 private:
  const CacheFacts& facts() const { return caches_.front()->facts(); }

  kernels::SparseLabels by_source(const data::Batch& batch) const {
    std::vector<at::Tensor> ids, weights, rests;
    int64_t width = 0;
    for (int64_t row = 0; row < batch.corpus_BT.size(0); ++row) {
      const auto source = static_cast<size_t>(batch.source_B[row].item<int64_t>());
      const kernels::SparseLabels labels = caches_.at(source)->read(batch.corpus_BT[row]);
      ids.push_back(labels.ids_NK);
      weights.push_back(labels.weights_NK);
      if (labels.rest_N.defined()) rests.push_back(labels.rest_N);
      width = std::max(width, labels.ids_NK.size(1));
    }
    const auto joined = [&](std::vector<at::Tensor> rows) {
      for (at::Tensor& row : rows) row = at::constant_pad_nd(row, {0, width - row.size(1)});
      return at::cat(rows);
    };
    return {joined(std::move(ids)), joined(std::move(weights)),
            rests.empty() ? at::Tensor() : at::cat(rests)};
  }

  Caches caches_;
};

}  // namespace

std::unique_ptr<Teacher> make_cached_teacher(std::vector<std::shared_ptr<const TeacherCache>> caches) {
  RETORT_ASSERT(!caches.empty());
  return std::make_unique<CachedTeacher>(std::move(caches));
}

}  // namespace retort::distill
