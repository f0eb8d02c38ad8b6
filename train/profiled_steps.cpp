#include "train/profiled_steps.h"

#include <utility>

#include "models/on_device.h"
#include "train/metrics.h"

namespace retort::train {
namespace {

constexpr int64_t kUnprofiled = 2;  // steps before them

// 0 where there is no memory for it: a profile ends no run.
double copy_rate(const at::Device& device) {
  try {
    return measured_copy_rate(device);
  } catch (const std::exception& error) {
    if (refusal_of_memory(error).empty()) throw;
    return 0;
  }
}

std::string rate_of_products(double flops) { return flops > 0 ? rate_text(flops) : "an unknown rate"; }
std::string rate_of_copies(double bytes) {
  return bytes > 0 ? format_bytes(static_cast<uint64_t>(bytes)) + "/s" : "an unknown rate";
}

}  // namespace

ProfiledSteps::ProfiledSteps(const TrainerParts& parts, TrainStep& step,
                             std::function<std::vector<Holder>()> holders, int64_t left)
    : parts_(parts),
      step_(step),
      holders_(std::move(holders)),
      wanted_(parts.step.comm.rank() == 0 ? parts.profile : 0) {
  if (wanted_ == 0 || left > kUnprofiled) return;
  warn_of_none(left, "left");
  wanted_ = 0;
}

void ProfiledSteps::begin_step() {
  if (wanted_ == 0 || taken_++ != kUnprofiled) return;
  step_.run_without_graphs(true);
  profile_ = std::make_unique<Profile>(models::device_of(parts_.step.model.parameters()));
}

void ProfiledSteps::end_step() {
  if (taken_ == kUnprofiled + wanted_) tell();
}

void ProfiledSteps::end_run() {
  tell();
  if (wanted_ > 0 && taken_ <= kUnprofiled) warn_of_none(taken_, "taken before the end");
}

void ProfiledSteps::warn_of_none(int64_t steps, const char* how) const {
  parts_.log.warn(
      "no step is profiled (--profile): it needs at least {} steps, of which the first {} make what later "
      "ones reuse, got {} {}",
      kUnprofiled + 1, kUnprofiled, steps, how);
}

void ProfiledSteps::tell() {
  if (!profile_) return;
  const std::unique_ptr<Profile> profile = std::move(profile_);
  profile->stop();
  step_.run_without_graphs(false);
  const Path trace = parts_.directory / "profile.json";
  write_durably(parts_.files, trace, profile->trace());
  const at::Device device = models::device_of(parts_.step.model.parameters());
  const auto use = memory_use(device);  // before a copy is measured
  const Ceilings ceilings{parts_.ceiling / parts_.step.comm.size(), copy_rate(device)};
  const int64_t steps = taken_ - kUnprofiled;
  parts_.log.info(
      "where {} step{} went, their micro-batches without graphs; the ceiling of rows with FLOPs is {} of "
      "products, of others {} of a copy; {} is for chrome://tracing\n{}",
      steps, steps == 1 ? "" : "s", rate_of_products(ceilings.flops), rate_of_copies(ceilings.bytes),
      trace.string(), profile->table(steps, ceilings));
  parts_.log.info(
      "what holds {}'s memory; activations: all that a step needs besides, at the peak so far\n{}",
      device.str(), table_of(holders_(), use));
}

}  // namespace retort::train
