// Whether a model can read a text that was made into tokens.
#pragma once

#include <string>

#include "artifacts/open_model.h"
#include "data/token_shards.h"

namespace retort::artifacts {

// DataError where the model reads another tokenizer than the text was made with; `what` names the text.
void check_tokenizer(const OpenedModel& model, const data::TokenShards& text, const std::string& what);

}  // namespace retort::artifacts
