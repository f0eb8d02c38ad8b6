// Several live teachers as one: p = sum_i w_i p_i / sum_i w_i, with the weights of the row's source. The loss
// makes the mixture where it applies the heads (kernels/linear_loss.h). A teacher whose weight is 0 for every
// row of a batch has no part in it, and does not run unless ranks ask it together.
#include <algorithm>

#include "core/error.h"
#include "core/upload.h"
#include "distill/teacher.h"

namespace retort::distill {
namespace {

class MixedTeacher final : public Teacher {
 public:
  explicit MixedTeacher(std::vector<Share> shares) : shares_(std::move(shares)) {
    for (const Share& share : shares_) vocabulary_ = std::min(vocabulary_, share.teacher->vocabulary());
  }

  TeacherSignal signal(const data::Batch& batch, const std::vector<int64_t>&) override {
    TeacherSignal out;
    for (const Share& share : shares_) {
      at::Tensor weight_N = weights_of(share, batch);
      const bool apart = weight_N.max().item<float>() == 0.0f;
      if (apart && !share.teacher->asked_together()) continue;
      TeacherSignal signal = share.teacher->signal(batch, {});
      if (apart) continue;
      weight_N = upload(weight_N, batch.tokens_BT.device());
      for (kernels::TeacherHead& head : signal.rows.heads) {
        head.weight_N = weight_N;
        out.rows.heads.push_back(std::move(head));
      }
    }
    return out;
  }

  int64_t vocabulary() const override { return vocabulary_; }

 private:
  // On the host, where a batch has its sources.
  static at::Tensor weights_of(const Share& share, const data::Batch& batch) {
    const int64_t rows = batch.tokens_BT.size(0), tokens = batch.tokens_BT.size(1);
    if (share.weights.size() == 1) return at::full({rows * tokens}, share.weights.front(), at::kFloat);
    RETORT_ASSERT(batch.source_B.defined());
    return at::tensor(share.weights, at::kFloat)
        .index_select(0, batch.source_B)
        .unsqueeze(1)
        .expand({rows, tokens})
        .reshape({-1});
  }

  std::vector<Share> shares_;
  int64_t vocabulary_ = std::numeric_limits<int64_t>::max();
};

}  // namespace

std::unique_ptr<Teacher> make_mixed_teacher(std::vector<Share> shares) {
  RETORT_ASSERT(!shares.empty());
  return std::make_unique<MixedTeacher>(std::move(shares));
}

}  // namespace retort::distill
