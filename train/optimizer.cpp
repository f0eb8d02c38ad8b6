#include "train/optimizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/registry.h"
#include "train/adamw.h"

namespace retort::train {
namespace {

struct OptimizerSpec {
  std::string name;
  std::unique_ptr<Optimizer> (*make)(const OptimizerOptions&, const Trained&);
};

const Registry<OptimizerSpec>& optimizers() {
  static const Registry<OptimizerSpec> table("optimizer", {{"adamw", make_adamw}});
  return table;
}

Rule<double> below_one() {
  return {"in [0, 1)", [](const double& v) { return v >= 0.0 && v < 1.0; }, {}};
}

}  // namespace

void OptimizerOptions::describe(Section& s) {
  s.field("kind", kind, "rule by which gradients move the weights", one_of(optimizer_kinds()));
  s.field("lr", lr, "highest learning rate; the schedule scales it", above(0.0));
  s.field("beta1", beta1, "decay of the first moment", below_one());
  s.field("beta2", beta2, "decay of the second moment; raise it for small batches", below_one());
  s.field("eps", eps, "number added to the root of the second moment", above(0.0));
  s.field("weight_decay", weight_decay,
          "decoupled decay of matrices: each step takes this share, times the learning rate, of every weight",
          at_least(0.0));
  s.field("decay_embeddings", decay_embeddings, "decay embeddings and learned positions too");
  s.field("decay_all", decay_all, "decay every parameter, norms, biases and adapters too");
  s.field("lora_plus", lora_plus,
          "learning rate of B and of the lengths of adapters, as a multiple of lr (LoRA+: 16)", above(0.0));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const Trained& trained) {
  const OptimizerSpec& spec = optimizers().at(options.kind);
  const bool trains = std::ranges::any_of(trained.all(), [](const auto* p) { return !p->frozen; });
  check<ConfigError>(trains, "[optimizer] every parameter is frozen: there is nothing to train");
  return spec.make(options, trained);
}

std::vector<std::string> optimizer_kinds() { return optimizers().names(); }

}  // namespace retort::train
