#include "train/step.h"

#include <cmath>

#include "core/error.h"
#include "core/host_tensor.h"
#include "data/on_device.h"
#include "kernels/gradient_norm.h"
#include "models/on_device.h"

namespace retort::train {
namespace {

// f64 [2 + parts] of a micro-batch: the loss, its parts, and how many ranks saw a norm that is not finite.
at::Tensor figures_of(const LossSum& loss) {
  std::vector<at::Tensor> scalars{loss.sum.detach().reshape({}).to(at::kDouble)};
  for (const at::Tensor& part : loss.parts) scalars.push_back(part.reshape({}).to(scalars.front().options()));
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

// The blocks of all gradients, of which this rank has its own rows, contiguous; a frozen parameter has none.
std::vector<kernels::BlockedGradient> owned_blocks(const Trained& trained,
                                                   std::vector<at::Tensor>& gradients) {
  std::vector<kernels::BlockedGradient> out;
  for (size_t i = 0; const models::Parameter* p : trained.all()) {
    at::Tensor& gradient = gradients[i++];
    if (p->frozen) continue;
    gradient = gradient.contiguous();
    out.push_back({gradient, {0, gradient.size(0), p->placement.owned.step}});
  }
  return out;
}

// Cuts what one copy has brought: numbers before, then the figures of each micro-batch.
std::vector<at::Tensor> figures_in(const at::Tensor& host, int64_t before, int64_t micro_batches) {
  const at::Tensor figures_GK = host.slice(0, before).view({micro_batches, -1});
  return figures_GK.unbind(0);
}

}  // namespace

TrainStep::TrainStep(StepParts parts, int64_t micro_batches, double clip_norm)
    : parts_(parts),
      micro_batches_(parts.comm, micro_batches, parts.owners),
      clip_norm_(clip_norm),
      trained_(parts.model.parameters(), parts.objective.learned()),
      sync_(trained_, parts.comm, micro_batches, GradSync::kBucketBytes, parts.owners) {}

StepStats TrainStep::run(int64_t step, const std::vector<data::Batch>& given, double lr) {
  RETORT_ASSERT(std::ssize(given) == micro_batches_.each());
  StepStats stats;
  stats.step = step;
  stats.lr = lr;

  models::Parameters& parameters = parts_.model.parameters();
  if (parts_.map.begin_step(step))
    parts_.owners == nullptr ? models::refresh_working(parameters, parts_.map)
                             : parts_.owners->refresh_all(parameters, parts_.map);
  const std::vector<data::Batch> batches = parts_.objective.prepare(parts_.model, step, given);

  // count: before any backward, since every micro-batch's gradient is divided by the whole
  stats.counted = count(parts_.objective.counted(), batches, parts_.comm);
  const auto divisor = static_cast<double>(stats.counted);
  if (!stats.measured()) return stats;

  // forward and backward
  const at::Device device = models::device_of(parameters);
  std::vector<at::Tensor> figures;
  parts_.objective.begin_step(step);
  sync_.begin_step();
  for (int64_t g = 0; g < micro_batches_.each(); ++g) {
    sync_.begin_micro_batch(g);
    const LossSum loss =
        parts_.objective(parts_.model, data::on_device(batches[static_cast<size_t>(g)], device));
    (loss.sum / divisor).backward();
    sync_.end_micro_batch(g);
    figures.push_back(figures_of(loss));
  }

  // finish
  std::vector<at::Tensor> gradients = pull_back(parts_, sync_.finish());

  // clip and guard
  const kernels::Squares squares = kernels::squares_of(owned_blocks(trained_, gradients));
  const at::Tensor figures_GK = at::stack(figures);
  const bool alone = parts_.comm.size() == 1;
  const at::Tensor verdict = alone ? kernels::judge(squares, figures_GK.select(1, 0), clip_norm_)
                                   : judge_together(squares, figures_GK, stats).to(device, true);

  // update, or not, as the verdict has it
  parts_.optimizer.step(trained_, gradients, lr, verdict);
  parts_.owners == nullptr ? models::refresh_trained(parameters, parts_.map)
                           : parts_.owners->refresh(parameters, parts_.map);

  // read: the one time that the host waits for a device that trains alone
  if (alone) read_alone(verdict, figures_GK, stats);
  if (stats.skipped) parts_.optimizer.left_out();
  stats.parts = parts_.objective.figures(std::move(stats.parts));
  return stats;
}

// Of one rank, whose device has decided by itself.
void TrainStep::read_alone(const at::Tensor& verdict, const at::Tensor& figures_GK, StepStats& stats) const {
  const at::Tensor host = at::cat({verdict, figures_GK.flatten()}).cpu();
  const std::span<const double> values = host_values<const double>(host);
  stats.gradient_norm = values[0];
  stats.skipped = values[2] == 0.0;
  share_figures(figures_in(host, verdict.numel(), figures_GK.size(0)), stats);
}

// Of several: norm and loss are of all of them, so that every rank decides alike, on the host, which has their sums.
at::Tensor TrainStep::judge_together(const kernels::Squares& squares, const at::Tensor& figures_GK,
                                     StepStats& stats) const {
  const at::Tensor host = at::cat({squares.pieces.to(figures_GK.device()), figures_GK.flatten()})
                              .cpu();  // a rank may own nothing
  const int64_t pieces = squares.pieces.numel();
  const std::vector<double> blocks =
      squares.blocks(host_values<const double>(host).first(static_cast<size_t>(pieces)));
  stats.gradient_norm =
      kernels::norm_of(parts_.owners == nullptr ? blocks : parts_.owners->of_all_blocks(blocks));
  const bool finite = share_figures(figures_in(host, pieces, figures_GK.size(0)), stats);
  stats.skipped = !finite;
  return kernels::verdict(stats.gradient_norm, finite, clip_norm_);
}

// Fills in the means over micro-batches and ranks; whether loss and gradient are finite on every rank. One reduction.
bool TrainStep::share_figures(const std::vector<at::Tensor>& figures, StepStats& stats) const {
  if (!std::isfinite(stats.gradient_norm)) figures.front()[-1].fill_(1.0);
  const auto count = static_cast<double>(stats.counted);
  const int64_t parts = figures.front().numel() - 2;
  const at::Tensor total = micro_batches_.sum(figures);
  const std::span<const double> sum = host_values<const double>(total);
  stats.loss = sum[0] / count;
  for (int64_t i = 1; i <= parts; ++i) stats.parts.push_back(sum[i] / count);
  return std::isfinite(stats.loss) && sum[parts + 1] == 0.0;
}

}  // namespace retort::train
