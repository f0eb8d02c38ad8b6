#include "train/diverged.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort::train {
namespace {

bool finite(const models::Parameter& p) {
  return p.frozen || p.master.detach().cpu().isfinite().all().item<bool>();
}

// What can still be changed: a clip that is there, a warm-up that is shorter than the training, products in bf16.
std::string other_advice(const TrainOptions& options) {
  std::string out = options.clip_norm > 0
                        ? fmt::format(" or train.clip_norm ({}; 0: no clipping)", options.clip_norm)
                        : ", set train.clip_norm (0: no clipping)";
  if (options.schedule.warmup < options.steps)
    out += fmt::format(", raise train.schedule.warmup ({})", options.schedule.warmup);
  if (options.precision != "fp32")
    out += fmt::format(", or take train.precision: fp32 ({})", options.precision);
  return out;
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
      "Lower train.optimizer.lr ({}){}",
      step,
      weights ? fmt::format("{} is not finite", all[static_cast<size_t>(first)]->name)
              : fmt::format("the validation loss is {}", validation_loss),
      options.optimizer.lr, other_advice(options));
}

}  // namespace retort::train
