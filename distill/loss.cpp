#include "distill/loss.h"

namespace retort::distill {

LossSpec forward_kl();     // forward_kl.cpp
LossSpec cross_entropy();  // cross_entropy.cpp

const Registry<LossSpec>& losses() {
  static const Registry<LossSpec> table("distillation loss", {
                                                                 forward_kl(),
                                                                 cross_entropy(),
                                                             });
  return table;
}

void LossOptions::describe(Section& s) {
  s.field("fn", fn, "loss on a row of logits", one_of(losses().names()));
  s.field("weight", weight, "factor of this loss in the sum", at_least(0.0));
  s.field("temperature", temperature,
          "softens teacher and student alike; the loss is multiplied by its square", above(0.0));
}

}  // namespace retort::distill
