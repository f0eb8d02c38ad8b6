// The `preference` section of a recipe: a train stage learns from pairs of answers, or from rated ones. Its keys are
// distill/preference_loss.h's. Values; any thread.
#pragma once

#include <optional>

#include "distill/preference_loss.h"

namespace retort::recipes {

using PreferenceSection = std::optional<distill::PreferenceOptions>;  // absent: the labels of a text

}  // namespace retort::recipes
