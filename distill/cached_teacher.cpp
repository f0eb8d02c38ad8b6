// Caches in a teacher's place, one for each source of the batches: labels by where each token stands in its
// corpus. Nothing is computed.
#include "core/error.h"
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
      check<ConfigError>(
          a.kind == b.kind && a.size == b.size && a.temperature == b.temperature &&
              a.vocabulary == b.vocabulary,
          "[distill] the caches of several sources must hold the same kind, number, temperature "
          "and vocabulary of labels, got {} and {}",
          caches_.front()->directory().string(), cache->directory().string());
    }
  }

  TeacherSignal signal(const data::Batch& batch) override {
    check<InternalError>(batch.corpus_BT.defined(), "[distill] a cache is read by places in the corpus");
    return {
        .labels = caches_.size() == 1 ? caches_.front()->read(batch.corpus_BT.flatten()) : by_source(batch),
        .vocabulary = facts().vocabulary,
        .places_N = batch.corpus_BT.flatten()};
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
