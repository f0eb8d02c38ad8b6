#include "distill/loss.h"

#include <algorithm>

namespace retort::distill {

// Each in the file of its name.
LossSpec forward_kl();
LossSpec reverse_kl();
LossSpec jsd();
LossSpec skew_forward_kl();
LossSpec skew_reverse_kl();
LossSpec total_variation();
LossSpec adaptive_kl();
LossSpec logit_mse();
LossSpec sampled();
LossSpec top_k_drop();
LossSpec top_k_renormalise();
LossSpec top_k_ghost();
LossSpec top_k_label();
LossSpec hidden_mse();
LossSpec hidden_cosine();
LossSpec attention_relation();
LossSpec cross_entropy();

const Registry<LossSpec>& losses() {
  static const Registry<LossSpec> table("distillation loss", {
                                                                 forward_kl(),
                                                                 reverse_kl(),
                                                                 jsd(),
                                                                 skew_forward_kl(),
                                                                 skew_reverse_kl(),
                                                                 total_variation(),
                                                                 adaptive_kl(),
                                                                 logit_mse(),
                                                                 sampled(),
                                                                 top_k_drop(),
                                                                 top_k_renormalise(),
                                                                 top_k_ghost(),
                                                                 top_k_label(),
                                                                 hidden_mse(),
                                                                 hidden_cosine(),
                                                                 attention_relation(),
                                                                 cross_entropy(),
                                                             });
  return table;
}

namespace {

bool takes(const LossSpec& spec, std::string_view parameter) {
  return std::find(spec.parameters.begin(), spec.parameters.end(), parameter) != spec.parameters.end();
}

// "... (of skew_forward_kl, skew_reverse_kl)"
std::string with_owners(const char* parameter, const char* doc) {
  std::vector<std::string> owners;
  for (const LossSpec& spec : losses())
    if (takes(spec, parameter)) owners.push_back(spec.name);
  return fmt::format("{} (of {})", doc, fmt::join(owners, ", "));
}

}  // namespace

// Documentation has no fn: every parameter is described then.
void LossOptions::describe(Section& s) {
  s.field("fn", fn, "name of the loss", one_of(losses().names()));
  s.field("weight", weight, "factor of this loss in the sum", at_least(0.0));
  s.optional("schedule", schedule, "change of the weight over the steps; absent: constant");
  const LossSpec* spec = losses().find(fn);
  const auto field = [&](const char* name, auto& value, const char* doc, auto... rule) {
    if (spec == nullptr || takes(*spec, name)) s.field(name, value, with_owners(name, doc), rule...);
  };
  const Rule<double> inside = {"in (0, 1)", [](double v) { return v > 0 && v < 1; }, {}};
  field("temperature", temperature,
        "softens the distributions of teacher and student alike; the loss is multiplied by its square",
        above(0.0));
  field("alpha", alpha, "share of the other model's distribution in the mixture", inside);
  field("beta", beta,
        "share of the teacher in the mixture; 0 is forward KL and 1 reverse KL by definition, while the "
        "formula shrinks near both ends: at .01 the gradient is a hundredth of forward KL's",
        between(0.0, 1.0));
  field("k", k, "number of likeliest ids; 0: all that a cache has, 64 from a live teacher",
        at_least<int64_t>(0));
  field("draws", draws, "draws for each position; 0: as many as a cache has, 50 from a live teacher",
        at_least<int64_t>(0));
  field("layers", layers,
        "student's layers to compare, from 0; empty: all, and for attention relations the last");
  field("teacher_layers", teacher_layers,
        "teacher's layers to compare them with; empty: those at the same share of the depth");
  field("relations", relations, "products to compare, any of qq, kk, vv");
  field("relation_heads", relation_heads,
        "number of heads into which each side's vectors are divided; 0: as many as the student has key and "
        "value heads",
        at_least<int64_t>(0));
}

}  // namespace retort::distill
