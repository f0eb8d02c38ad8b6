// A second MODEL of an evaluate stage, which sees the first one's tokens and so must have its vocabulary: a drafter, which
// proposes what the first then accepts or refuses (eval/drafting.h), or the reference that the first was made from
// (eval/divergence.h).
#pragma once

#include <string>

#include "recipes/stage_context.h"

namespace retort::recipes {

// How they differ: the first ids that mean different things, and their numbers of tokens; "" where they do not. `noun` is the
// second's, "drafter".
std::string vocabulary_misfit(const std::string& noun, const data::Tokenizer& second,
                              const data::Tokenizer& first);
// That of evaluate.`noun`. ConfigError, naming both models and the first tokens that differ, unless token ids mean the same
// to both.
artifacts::OpenedModel open_second(const StageContext& context, const std::string& noun,
                                   const std::string& address, const artifacts::OpenedModel& first);

}  // namespace retort::recipes
