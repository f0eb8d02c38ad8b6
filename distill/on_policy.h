// On-policy distillation (Agarwal et al. 2024, arXiv 2306.13649): in a share of the steps the student writes the
// answers itself, and learns what the teacher says of them. Each document of a batch with a label becomes a row: its
// prompt, then sampled tokens up to the first end token, which is learned; one that is cut short has no end. A draw
// follows from (seed, step, row of the data, document), so ranks and restarts see the same answers. docs/distillation.md
// has the rules. One rank, one thread; throws ConfigError for options, and as eval/generate.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/section.h"
#include "train/objective.h"

namespace retort::distill {

struct OnPolicyOptions {
  double share = 0.5;
  int64_t prompt = 0, tokens = 128;
  double temperature = 1.0;
  void describe(Section& s);
};

// What the answers are drawn with beside the options.
struct Sampling {
  std::vector<int32_t> ends = {};  // tokens that end an answer
  uint64_t seed = 0;
};

// `distillation` on the student's own answers in a share of the steps, on the given ones in the others.
std::unique_ptr<train::Objective> make_on_policy(std::unique_ptr<train::Objective> distillation,
                                                 const OnPolicyOptions& options, Sampling sampling);

// The batch with a model's answers in the place of the given ones, made with the working weights: a row each, its labels
// the answer alone.
data::Batch sample_answers(models::Model& model, const data::Batch& batch, int64_t step,
                           const OnPolicyOptions& options, const Sampling& sampling);
// Rows that these are, of a batch's prompts.
int64_t answer_count(const data::Batch& batch, int64_t prompt);

}  // namespace retort::distill
