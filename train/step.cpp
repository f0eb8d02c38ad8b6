#include "train/step.h"

#include <cmath>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "kernels/gradient_norm.h"

namespace retort::train {
namespace {

// The tree sums f64 [2 + parts]: the loss, its parts, and how many ranks saw a norm that is not finite.
struct Sum {
  at::Tensor operator()(at::Tensor left, const at::Tensor& right) const { return left.add_(right); }
};
using LossTree = comm::TreeSum<at::Tensor, Sum>;

at::Tensor figures_of(const LossSum& loss) {
  std::vector<at::Tensor> scalars{loss.sum.detach().reshape({}).to(at::kDouble)};
  for (const at::Tensor& part : loss.parts) scalars.push_back(part.reshape({}).to(at::kDouble));
  scalars.push_back(at::zeros_like(scalars.front()));
  return at::stack(scalars);
}

int64_t count(const Counted& counted, const std::vector<data::Batch>& batches, comm::Comm& comm) {
  int64_t sum = 0;
  for (const data::Batch& batch : batches) sum += counted.in(batch);
  return comm.reduce(sum, comm::Reduce::kSum);
}

// Of the masters. What the objective learns comes last and is on no map.
std::vector<at::Tensor> pull_back(const StepParts& parts, const std::vector<at::Tensor>& working) {
  const models::Parameters& model = parts.model.parameters();
  const auto learned = working.begin() + std::ssize(model.unique());
  std::vector<at::Tensor> masters = models::pull_back(model, parts.map, {working.begin(), learned});
  masters.insert(masters.end(), learned, working.end());
  return masters;
}

// The owned blocks of all gradients, which it makes contiguous; a frozen parameter has none.
std::vector<kernels::BlockedGradient> owned_blocks(const Trained& trained,
                                                   std::vector<at::Tensor>& gradients) {
  std::vector<kernels::BlockedGradient> out;
  for (size_t i = 0; const models::Parameter* p : trained.all()) {
    at::Tensor& gradient = gradients[i++];
    if (p->frozen) continue;
    gradient = gradient.contiguous();
    out.push_back({gradient, p->placement.owned});
  }
  return out;
}

// Fills in the means and returns whether loss and gradient are finite on every rank, in one reduction.
bool share_figures(const std::vector<at::Tensor>& nodes, int64_t micro_batches, double count,
                   comm::Comm& comm, StepStats& stats) {
  if (!std::isfinite(stats.gradient_norm)) nodes.front()[-1].fill_(1.0);
  const int64_t parts = nodes.front().numel() - 2;
  const at::Tensor nodes_PN =
      at::zeros({comm::most_subtrees(micro_batches, comm.size()), parts + 2}, at::kDouble);
  for (int64_t row = 0; const at::Tensor& node : nodes) nodes_PN[row++].copy_(node);
  comm.sum_tree(nodes_PN, micro_batches).wait();
  const std::span<const double> sum = host_values<const double>(nodes_PN[0]);
  stats.loss = sum[0] / count;
  for (int64_t i = 1; i <= parts; ++i) stats.parts.push_back(sum[i] / count);
  return std::isfinite(stats.loss) && sum[parts + 1] == 0.0;
}

}  // namespace

TrainStep::TrainStep(StepParts parts, int64_t micro_batches, double clip_norm)
    : parts_(parts),
      micro_batches_(micro_batches),
      clip_norm_(clip_norm),
      trained_(parts.model.parameters(), parts.objective.learned()),
      sync_(trained_, parts.comm, micro_batches) {}

StepStats TrainStep::run(int64_t step, const std::vector<data::Batch>& given, double lr) {
  RETORT_ASSERT(static_cast<int64_t>(given.size()) == micro_batches_);
  StepStats stats;
  stats.step = step;
  stats.lr = lr;

  models::Parameters& parameters = parts_.model.parameters();
  if (parts_.map.begin_step(step)) models::refresh_working(parameters, parts_.map);
  const std::vector<data::Batch> batches = parts_.objective.prepare(parts_.model, step, given);

  // count: before any backward, since every micro-batch's gradient is divided by the whole
  stats.counted = count(parts_.objective.counted(), batches, parts_.comm);
  const auto divisor = static_cast<double>(stats.counted);
  if (!stats.measured()) return stats;

  // forward and backward
  LossTree losses(parts_.comm.rank() * micro_batches_);
  parts_.objective.begin_step(step);
  sync_.begin_step();
  for (int64_t g = 0; g < micro_batches_; ++g) {
    sync_.begin_micro_batch(g);
    const LossSum loss = parts_.objective(parts_.model, batches[static_cast<size_t>(g)]);
    (loss.sum / divisor).backward();
    sync_.end_micro_batch(g);
    losses.push(figures_of(loss));
  }

  // finish
  std::vector<at::Tensor> gradients = pull_back(parts_, sync_.finish());

  // clip
  const std::vector<kernels::BlockedGradient> owned = owned_blocks(trained_, gradients);
  const std::vector<double> squares = kernels::block_squares(owned);
  stats.gradient_norm =
      kernels::norm_of(parts_.owners == nullptr ? squares : parts_.owners->of_all_blocks(squares));
  kernels::clip_gradients(owned, stats.gradient_norm, clip_norm_);

  // guard: norm and loss are of all ranks, so every rank decides alike
  stats.skipped = !share_figures(losses.take(), micro_batches_, divisor, parts_.comm, stats);
  stats.parts = parts_.objective.figures(std::move(stats.parts));
  if (stats.skipped) return stats;

  // update
  parts_.optimizer.step(trained_, gradients, lr);
  if (parts_.owners != nullptr) parts_.owners->share_masters();
  models::refresh_trained(parameters, parts_.map);
  return stats;
}

}  // namespace retort::train
