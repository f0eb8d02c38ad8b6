// Learning from preferences as an Objective: sum over pairs, or over rated answers, of a loss of
// distill/preference_loss.h, on the log-probabilities of whole answers. Batches are rows of answers
// (data/answer_rows.h), which go through one forward pass; no row's logits exist as a whole. Parts have trl's
// names: rewards/chosen, rewards/rejected, rewards/margins, rewards/accuracies, logps/chosen, logps/rejected, and
// nll where it has a weight; of rated answers kl and desirable, the share of the good, instead of accuracies.
//
// Where a live reference (distill/reference.h) is the model's own start its numbers are the model's, bit for bit, at the
// first step. KTO takes its baseline from its micro-batch, in which answer i + 1 follows
// prompt i, cut to the batch's width: so the micro-batch is part of what is computed, and one row has no baseline.
// make_preference throws ConfigError; a call NonFiniteError for a reference that is not finite.
#pragma once

#include <memory>

#include "distill/preference_loss.h"
#include "distill/reference.h"
#include "train/objective.h"

namespace retort::distill {

train::Counted pairs_of_rows();  // "pairs": half of the rows
train::Counted rated_rows();     // "rows"

std::unique_ptr<train::Objective> make_preference(std::unique_ptr<Reference> reference,
                                                  const PreferenceOptions& options);

// Row i: the prompt of row i and the answer of the row after it, the first after the last; of the same width, with
// the answer's labels. Of fewer than two rows ConfigError.
data::Batch mismatched(const data::Batch& batch);

}  // namespace retort::distill
