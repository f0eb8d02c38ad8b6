#include "kernels/linear_loss.h"
#include "train/embedding_noise.h"
#include "train/objective.h"

namespace retort::train {
namespace {

class CrossEntropy final : public Objective {
 public:
  explicit CrossEntropy(const EmbeddingNoise& noise) : noise_(noise) {}

  LossSum operator()(models::Model& model, const data::Batch& batch) override {
    const at::Tensor h_BTD = model.hidden({.tokens_BT = batch.tokens_BT,
                                           .positions_BT = batch.positions_BT,
                                           .document_BT = batch.document_BT,
                                           .noise_BTD = noise_(batch, model.width())});
    const models::Head head = model.head();
    const at::Tensor h_ND = h_BTD.flatten(0, 1).to(head.weight_VD.scalar_type());
    const at::Tensor sum = kernels::linear_cross_entropy(h_ND, head, batch.labels_BT.flatten());
    return {sum, {sum.detach()}};
  }
  std::string not_repeatable() const override { return noise_.not_repeatable(); }
  std::vector<std::string> part_names() const override { return {"ce"}; }

 private:
  EmbeddingNoise noise_;
};

}  // namespace

std::unique_ptr<Objective> make_cross_entropy() { return make_cross_entropy(EmbeddingNoise{}); }

std::unique_ptr<Objective> make_cross_entropy(const EmbeddingNoise& noise) {
  return std::make_unique<CrossEntropy>(noise);
}

}  // namespace retort::train
