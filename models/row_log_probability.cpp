#include "models/row_log_probability.h"

#include "core/shape.h"
#include "kernels/linear_loss.h"

namespace retort::models {

namespace {

// In one order. On the CPU a running sum has it, and a sum follows the threads. On a device it is the other way round:
// LibTorch's running sum of a single row (cub's, whose blocks add up what the blocks before have done by then) has none.
at::Tensor in_order(const at::Tensor& nats_T) {
  return nats_T.is_cpu() ? nats_T.cumsum(0)[-1] : nats_T.sum();
}

}  // namespace

RowLogProbability row_log_probability(Model& model, const TokenBlock& block, const at::Tensor& labels_BT) {
  check_shape("row_log_probability", "labels_BT", labels_BT,
              {block.tokens_BT.size(0), block.tokens_BT.size(1)});
  return row_log_probability(model.hidden(block), model.head(), labels_BT);
}

RowLogProbability row_log_probability(const at::Tensor& h_BTD, const Head& head,
                                      const at::Tensor& labels_BT) {
  std::vector<at::Tensor> sums;
  for (int64_t b = 0; b < h_BTD.size(0); ++b) {
    const at::Tensor nats_T = kernels::linear_token_losses(h_BTD[b], head, labels_BT[b]);
    sums.push_back(in_order(nats_T).neg().to(at::kFloat));
  }
  return {at::stack(sums), labels_BT.ne(kernels::kIgnoredLabel).sum(1)};
}

}  // namespace retort::models
