// The drafter of an evaluate stage: a second, smaller MODEL that proposes what the first one then accepts or refuses
// (eval/drafting.h). It must have the first one's vocabulary.
#pragma once

#include <string>

#include "recipes/stage_context.h"

namespace retort::recipes {

// How they differ: the first ids that mean different things, and their numbers of tokens; "" where they do not.
std::string vocabulary_misfit(const data::Tokenizer& drafter, const data::Tokenizer& target);
// ConfigError, naming both models and the first tokens that differ, unless token ids mean the same to both.
artifacts::OpenedModel open_drafter(const StageContext& context, const std::string& address,
                                    const artifacts::OpenedModel& target);

}  // namespace retort::recipes
