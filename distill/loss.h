// The distillation losses, one file and one row each. A loss on logits is a pure function on a chunk of rows
// with its analytic gradient (kernels/linear_loss.h); chunking, heads, weights and normalisation are done for
// it. p is the teacher's distribution and q the student's, both at temperature T; a factor T^2 keeps the
// gradient's size. A loss on hidden states compares layers of both models (distill/hidden_loss.h).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/registry.h"
#include "core/section.h"
#include "distill/weight_schedule.h"
#include "kernels/linear_loss.h"

namespace retort::distill {

struct LossOptions {
  std::string fn = {};  // a row of the registry
  double weight = 1.0;
  std::optional<WeightSchedule> schedule = {};
  // A recipe may write only those that the loss's row names.
  double temperature = 1.0;
  double alpha = 0.1, beta = 0.5;
  int64_t k = 0, draws = 0;  // 0: the cache's own, or 64 and 50 from a live teacher
  std::vector<int64_t> layers = {}, teacher_layers = {};
  std::vector<std::string> relations = {"qq", "kk", "vv"};
  int64_t relation_heads = 0;
  uint64_t seed = 0;  // of draws and projections: the run's, not a key of a recipe
  double weight_at(int64_t step) const { return schedule ? schedule->at(weight, step) : weight; }
  void describe(Section& s);
};

// What a loss reads of the teacher's signal.
enum class Reads {
  kNothing,
  kDistribution,  // heads
  kDraws,         // sampled labels, or draws from heads
  kTop,           // top-k labels, or the likeliest ids of heads
  kLayers         // hidden states of a live teacher
};

struct LayerShape;  // distill/teacher.h

struct Sides;     // distill/hidden_loss.h
struct PairLoss;  // distill/hidden_loss.h

struct LossSpec {
  std::string name;
  std::string formula;  // one line for docs and `recipe explain`
  Reads reads = Reads::kDistribution;
  std::vector<std::string> parameters = {"temperature"};
  bool divergence = true;  // value and gradient vanish where student and teacher agree
  bool exact = true;  // the gradient is the value's derivative; false where a factor counts as a constant
  std::function<kernels::RowLoss(const LossOptions&)> make = {};
  std::function<std::vector<PairLoss>(const LossOptions&, const Sides&)> make_hidden = {};
  // ConfigError for options that make_hidden would refuse of models of these shapes.
  void (*check_hidden)(const LossOptions&, const LayerShape& student, const LayerShape& teacher) = nullptr;
  bool needs_teacher() const { return reads != Reads::kNothing; }
};

const Registry<LossSpec>& losses();

}  // namespace retort::distill
