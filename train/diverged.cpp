#include "train/diverged.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort::train {
namespace {

bool finite(const models::Parameter& p) {
  return p.frozen || p.master.detach().cpu().isfinite().all().item<bool>();
}

}  // namespace

void refuse_diverged(const Trained& trained, double validation_loss, int64_t step,
                     const TrainOptions& options, comm::Comm& comm) {
  const auto& all = trained.all();
  const auto sick = std::ranges::find_if(all, [](const models::Parameter* p) { return !finite(*p); });
  // Ranks that divide weights have looked at rows of their own.
  const int64_t first = comm.reduce(int64_t{sick - all.begin()}, comm::Reduce::kMin);
  const bool weights = first < std::ssize(all);
  if (!weights && std::isfinite(validation_loss)) return;
  fail<NonFiniteError>(
      "[train] step {}: training has diverged, {}. The stage has no result, and its checkpoints are kept. "
      "Lower train.optimizer.lr ({}) or train.clip_norm ({}; 0: no clipping), raise train.schedule.warmup "
      "({}), or take train.precision: fp32 ({})",
      step,
      weights ? fmt::format("{} is not finite", all[static_cast<size_t>(first)]->name)
              : fmt::format("the validation loss is {}", validation_loss),
      options.optimizer.lr, options.clip_norm, options.schedule.warmup, options.precision);
}

}  // namespace retort::train
