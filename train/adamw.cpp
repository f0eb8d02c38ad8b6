#include "train/adamw.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/adamw.h"
#include "train/owners.h"

namespace retort::train {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, const Trained& trained)
      : options_(options), step_(at::zeros({}, at::kLong)) {
    for (const models::Parameter* p : trained.all())
      if (!p->frozen)
        slots_.push_back({p, decays(p->role) ? options.weight_decay : 0.0, rate(p->role),
                          at::zeros_like(owned(*p, p->master)), at::zeros_like(owned(*p, p->master))});
  }

  void step(const Trained& trained, const std::vector<at::Tensor>& gradients, double lr,
            const at::Tensor& verdict, const std::vector<kernels::WorkingCopy>& copies) override {
    RETORT_ASSERT(gradients.size() == trained.all().size() && copies.size() <= gradients.size());
    const at::NoGradGuard no_grad;
    std::map<double, std::vector<kernels::AdamwTensor>> by_rate;
    auto slot = slots_.begin();
    for (size_t i = 0; const models::Parameter* p : trained.all()) {
      const kernels::WorkingCopy copy = i < copies.size() ? copies[i] : kernels::WorkingCopy();
      const at::Tensor& gradient = gradients[i++];
      if (p->frozen) continue;
      RETORT_ASSERT(slot != slots_.end() && p == slot->parameter);
      const models::RowBlocks& rows = p->placement.owned;
      by_rate[slot->rate].push_back({.p = owned(*p, p->master),  // which may have these rows alone
                                     .m = slot->m,
                                     .v = slot->v,
                                     .gradient = gradient.contiguous(),
                                     .blocks = {0, rows.end - rows.begin, rows.step},
                                     .decay = slot->decay,
                                     .copy = copy});
      ++slot;
    }
    RETORT_ASSERT(slot == slots_.end());
    step_.add_(1);
    for (const auto& [rate, tensors] : by_rate)
      kernels::adamw(tensors,
                     {.lr = lr * rate,
                      .beta1 = options_.beta1,
                      .beta2 = options_.beta2,
                      .eps = options_.eps,
                      .t = step_.item<int64_t>()},
                     verdict);
  }

  void left_out() override { step_.sub_(1); }

  formats::NamedTensors state() const override {
    formats::NamedTensors out{{"adamw.step", step_}};
    for (const Slot& s : slots_) {
      out.emplace_back("adamw.m." + s.parameter->name, s.m);
      out.emplace_back("adamw.v." + s.parameter->name, s.v);
    }
    return out;
  }

  std::vector<const models::Parameter*> state_parameters() const override {
    std::vector<const models::Parameter*> out{nullptr};
    for (const Slot& s : slots_) out.insert(out.end(), 2, s.parameter);
    return out;
  }

  void set_state(const std::map<std::string, at::Tensor>& state) override {
    const formats::NamedTensors mine = this->state();
    const std::vector<const models::Parameter*> parameters = state_parameters();
    for (size_t i = 0; const auto& [name, tensor] : mine) {
      const models::Parameter* p = parameters[i++];
      const at::IntArrayRef whole = p == nullptr ? tensor.sizes() : at::IntArrayRef(p->shape);
      const auto found = state.find(name);
      check<CheckpointError>(found != state.end(), "[adamw] the optimizer state lacks {}", name);
      const at::Tensor& theirs = found->second;
      check<CheckpointError>(theirs.sizes() == whole && theirs.scalar_type() == tensor.scalar_type(),
                             "[adamw] {} must be {} {}, got {} {}", name, toString(tensor.scalar_type()),
                             format_shape(whole), toString(theirs.scalar_type()),
                             format_shape(theirs.sizes()));
    }
    check<CheckpointError>(state.size() == mine.size(),
                           "[adamw] the optimizer state must hold {} tensors, got {}", mine.size(),
                           state.size());
    for (size_t i = 0; const auto& [name, tensor] : mine) {
      const models::Parameter* p = parameters[i++];
      tensor.copy_(p == nullptr ? state.at(name) : owned(*p, state.at(name)));
    }
  }

 private:
  struct Slot {
    const models::Parameter* parameter;
    double decay;
    double rate;  // as a multiple of the step's
    at::Tensor m, v;
  };

  double rate(models::Role role) const {
    return role == models::Role::kLoraB || role == models::Role::kMagnitude ? options_.lora_plus : 1.0;
  }

  bool decays(models::Role role) const {
    using models::Role;
    if (role == Role::kScale) return false;
    if (options_.decay_all || role == Role::kMatrix || role == Role::kHead) return true;
    return options_.decay_embeddings && (role == Role::kEmbedding || role == Role::kPositions);
  }

  OptimizerOptions options_;
  at::Tensor step_;          // updates done, i64
  std::vector<Slot> slots_;  // of the trained parameters, in declaration order
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerOptions& options, const Trained& trained) {
  return std::make_unique<AdamW>(options, trained);
}

}  // namespace retort::train
