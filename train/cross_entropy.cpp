#include "kernels/linear_loss.h"
#include "train/objective.h"

namespace retort::train {
namespace {

class CrossEntropy final : public Objective {
 public:
  LossSum operator()(models::Model& model, const data::Batch& batch) override {
    const at::Tensor h_BTD = model.hidden({batch.tokens_BT, batch.positions_BT, batch.document_BT});
    const models::Head head = model.head();
    const at::Tensor h_ND = h_BTD.flatten(0, 1).to(head.weight_VD.scalar_type());
    const at::Tensor sum = kernels::linear_cross_entropy(h_ND, head, batch.labels_BT.flatten());
    return {sum, {sum.detach()}};
  }
  std::vector<std::string> part_names() const override { return {"ce"}; }
};

}  // namespace

std::unique_ptr<Objective> make_cross_entropy() { return std::make_unique<CrossEntropy>(); }

}  // namespace retort::train
