// The distillation losses: one file and one row each. A loss is a pure function on a chunk of rows
// (kernels/linear_loss.h) with its analytic gradient; chunking, heads, weights and normalisation are not its
// business. p = teacher, q = student, both tempered by T; a factor T^2 keeps the gradient's size.
#pragma once

#include <functional>
#include <string>

#include "core/registry.h"
#include "core/section.h"
#include "kernels/linear_loss.h"

namespace retort::distill {

struct LossOptions {
  std::string fn = "forward_kl";  // a row of the registry
  double weight = 1.0;
  double temperature = 1.0;
  void describe(Section& s);
};

struct LossSpec {
  std::string name;
  std::string formula;  // one line for docs and `recipe explain`
  bool needs_teacher = true;
  std::function<kernels::RowLoss(const LossOptions&)> make;
};

const Registry<LossSpec>& losses();

}  // namespace retort::distill
