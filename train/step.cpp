#include "train/step.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/upload.h"
#include "kernels/gradient_norm.h"
#include "models/bucket_bytes.h"
#include "models/on_device.h"

namespace retort::train {
namespace {

struct Add {
  at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const { return left + right; }
};

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

std::vector<at::Tensor> masters_of(const Trained& trained) {
  std::vector<at::Tensor> out;
  for (const models::Parameter* p : trained.all())
    if (!p->frozen) out.push_back(p->master);
  return out;
}

// While it lives, the faults that are due in the middle of a backward pass strike there.
class BackwardFault {
 public:
  BackwardFault(const StepParts& parts, const Trained& trained, int64_t step) {
    const int rank = parts.comm.rank();
    if (parts.faults == nullptr || !parts.faults->due(InjectionPoint::kBackward, rank, step)) return;
    std::vector<at::Tensor> leaves;
    for (const models::Parameter* p : trained.all())
      if (!p->frozen) leaves.push_back(p->working);
    leaf_ = leaves[leaves.size() / 2];
    hook_ = leaf_.register_hook([faults = parts.faults, rank, step](const at::Tensor& gradient) {
      at::Tensor spoiled = gradient.to(at::kFloat).contiguous().clone();
      faults->strike(InjectionPoint::kBackward, rank, step, spoiled);
      return spoiled.to(gradient.scalar_type());
    });
  }
  ~BackwardFault() {
    if (leaf_.defined()) leaf_.remove_hook(hook_);
  }
  bool is_due() const { return leaf_.defined(); }
  BackwardFault(const BackwardFault&) = delete;
  BackwardFault& operator=(const BackwardFault&) = delete;

 private:
  at::Tensor leaf_;
  unsigned hook_ = 0;
};

// nullptr where micro-batches are not to be repeated; the log hears what forbids it.
kernels::CaptureGraph capture_of(const StepParts& parts) {
  const at::Device device = models::device_of(parts.model.parameters());
  const kernels::CaptureGraph capture = parts.graphs ? kernels::graphs_for(device) : nullptr;
  if (capture == nullptr) return nullptr;
  std::string why = not_repeatable(parts.objective.not_repeatable(), parts.model);
  if (parts.owners != nullptr && parts.owners->gathered() != nullptr)
    why = "each layer's weights are gathered when it comes to them";
  if (why.empty()) return capture;
  if (parts.log != nullptr)
    parts.log->info("micro-batches are not repeated as graphs (train.graph): {}", why);
  return nullptr;
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
      sync_(trained_, parts.comm, micro_batches,
            models::bucket_bytes(!models::device_of(parts.model.parameters()).is_cpu()), parts.owners),
      batches_(models::device_of(parts.model.parameters())),
      graphs_(
          trained_, sync_,
          [this](const data::Batch& batch, const at::Tensor& divisor) {
            return forward_and_backward(batch, divisor);
          },
          capture_of(parts), parts.log) {}

StepStats TrainStep::run(int64_t step, const std::vector<data::Batch>& given, double lr,
                         const StepLimits& limits) {
  RETORT_ASSERT(std::ssize(given) == micro_batches_.each());
  StepStats stats;
  stats.step = step;
  stats.lr = lr;
  strike(InjectionPoint::kBeforeStep, step);

  models::Parameters& parameters = parts_.model.parameters();
  if (parts_.map.begin_step(step)) {
    graphs_.discard();
    parts_.owners == nullptr ? models::refresh_working(parameters, parts_.map)
                             : parts_.owners->refresh_all(parameters, parts_.map);
  }
  const std::vector<data::Batch> batches = parts_.objective.prepare(parts_.model, step, given);
  batches_.send(batches);

  // count: before any backward, since every micro-batch's gradient is divided by the whole
  stats.counted = count(parts_.objective.counted(), batches, parts_.comm);
  if (!stats.measured()) return stats;

  Attempt result = attempt(stats, limits);
  if (result.stats.skipped && limits.rerun) {  // which has left the weights as they were
    Attempt again = attempt(stats, limits);
    again.stats.at_fault = odd_ranks(result, again);
    result = std::move(again);
  }
  strike(InjectionPoint::kAfterUpdate, step, masters_of(trained_));
  return result.stats;
}

TrainStep::Attempt TrainStep::attempt(StepStats stats, const StepLimits& limits) {
  models::Parameters& parameters = parts_.model.parameters();
  sync_.begin_step(limits.rerun);
  const at::Tensor figures_GK = at::stack(pass(stats.step, static_cast<double>(stats.counted)));

  // finish
  std::vector<at::Tensor> gradients = pull_back(parts_, sync_.finish());
  strike(InjectionPoint::kAfterBackward, stats.step, gradients);

  // clip and guard
  const kernels::Squares squares = kernels::squares_of(owned_blocks(trained_, gradients));
  const bool alone = parts_.comm.size() == 1;
  const at::Tensor verdict =
      alone ? judge_alone(squares, figures_GK, stats.counted, limits)
            : upload(judge_together(squares, figures_GK, limits, stats), models::device_of(parameters));

  // update, or not, as the verdict has it
  std::vector<kernels::WorkingCopy> copies;
  if (parts_.owners == nullptr) copies = models::copies_in_update(parameters, parts_.map);
  parts_.optimizer.step(trained_, gradients, stats.lr, verdict, copies);
  parts_.owners == nullptr ? models::refresh_trained(parameters, parts_.map, copies)
                           : parts_.owners->refresh(parameters, parts_.map);

  // read: the one time that the host waits for a device that trains alone
  if (alone) read_alone(verdict, figures_GK, stats);
  if (stats.skipped) parts_.optimizer.left_out();
  stats.parts = parts_.objective.figures(std::move(stats.parts));
  if (!limits.rerun) return {std::move(stats), {}};
  const at::Tensor bits = figures_GK.select(1, 0).contiguous().view(at::kLong);
  return {std::move(stats), at::cat({bits, sync_.fingerprints_G().to(bits.device())})};
}

// Forward and backward: the figures of each micro-batch.
std::vector<at::Tensor> TrainStep::pass(int64_t step, double divisor) {
  std::vector<at::Tensor> figures;
  parts_.objective.begin_step(step);
  graphs_.begin_step(divisor);
  for (int64_t g = 0; g < micro_batches_.each(); ++g) {
    const data::Batch batch = batches_.take(static_cast<size_t>(g));
    const BackwardFault fault(parts_, trained_, step);
    figures.push_back(fault.is_due() ? graphs_.run_once(g, batch) : graphs_.run(g, batch));
  }
  return figures;
}

at::Tensor TrainStep::forward_and_backward(const data::Batch& batch, const at::Tensor& divisor) const {
  const LossSum loss = parts_.objective(parts_.model, batch);
  const at::Tensor one = at::ones(loss.sum.sizes(), loss.sum.options().requires_grad(false));
  loss.sum.backward(one / divisor.to(loss.sum.scalar_type()));
  return figures_of(loss);
}

// The faults that are due, of the middle one of the victims.
void TrainStep::strike(InjectionPoint point, int64_t step, const std::vector<at::Tensor>& victims) const {
  if (parts_.faults == nullptr || !parts_.faults->due(point, parts_.comm.rank(), step)) return;
  std::vector<at::Tensor> there;
  std::ranges::copy_if(victims, std::back_inserter(there),
                       [](const at::Tensor& t) { return t.defined() && t.numel() > 0; });
  parts_.faults->strike(point, parts_.comm.rank(), step,
                        there.empty() ? at::Tensor() : there[there.size() / 2]);
}

// Those that computed other bits the second time.
std::vector<int> TrainStep::odd_ranks(const Attempt& first, const Attempt& second) const {
  const bool differs = !at::equal(first.evidence.cpu(), second.evidence.cpu());
  const at::Tensor all_R = at::zeros({parts_.comm.size(), 1}, at::kLong);
  parts_.comm.all_gather(all_R, at::full({1}, int64_t{differs}, at::kLong)).wait();
  std::vector<int> odd;
  for (int rank = 0; rank < parts_.comm.size(); ++rank)
    if (all_R[rank].item<int64_t>() != 0) odd.push_back(rank);
  return odd;
}

// Of one rank, whose device has decided by itself.
void TrainStep::read_alone(const at::Tensor& verdict, const at::Tensor& figures_GK, StepStats& stats) const {
  const at::Tensor host = at::cat({verdict, figures_GK.flatten()}).cpu();
  const std::span<const double> values = host_values<const double>(host);
  stats.gradient_norm = values[0];
  stats.skipped = values[2] == 0.0;
  share_figures(figures_in(host, verdict.numel(), figures_GK.size(0)), stats);
}

// Of one rank, where its gradients are. A loss has the bits that share_figures() gives it.
at::Tensor TrainStep::judge_alone(const kernels::Squares& squares, const at::Tensor& figures_GK,
                                  int64_t counted, const StepLimits& limits) const {
  const at::Tensor losses_G = figures_GK.select(1, 0);
  const at::Tensor verdict = kernels::judge(squares, losses_G, clip_norm_);
  if (std::isinf(limits.loss) && std::isinf(limits.norm)) return verdict;
  comm::TreeSum<at::Tensor, Add> sum;
  for (const at::Tensor& loss : losses_G.unbind(0)) sum.push(loss);
  const at::Tensor loss = sum.finish() / static_cast<double>(counted);
  verdict[2].mul_((verdict[0] <= limits.norm).logical_and(loss <= limits.loss));
  return verdict;
}

// Of several: norm and loss are of all of them, so that every rank decides alike, on the host, which has their sums.
at::Tensor TrainStep::judge_together(const kernels::Squares& squares, const at::Tensor& figures_GK,
                                     const StepLimits& limits, StepStats& stats) const {
  const at::Tensor host = at::cat({squares.pieces.to(figures_GK.device()), figures_GK.flatten()})
                              .cpu();  // a rank may own nothing
  const int64_t pieces = squares.pieces.numel();
  const std::vector<double> blocks =
      squares.blocks(host_values<const double>(host).first(static_cast<size_t>(pieces)));
  stats.gradient_norm =
      kernels::norm_of(parts_.owners == nullptr ? blocks : parts_.owners->of_all_blocks(blocks));
  const bool finite = share_figures(figures_in(host, pieces, figures_GK.size(0)), stats);
  const bool go = finite && stats.gradient_norm <= limits.norm && stats.loss <= limits.loss;
  stats.skipped = !go;
  return kernels::verdict(stats.gradient_norm, go, clip_norm_);
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
