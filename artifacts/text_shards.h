// Token shards that a model reads a text from.
#pragma once

#include <memory>
#include <string>

#include "artifacts/open_model.h"
#include "data/token_shards.h"

namespace retort::artifacts {

// Those of DIRECTORY/part where `retort data prepare` made them, else those of DIRECTORY.
std::shared_ptr<const data::TokenShards> shards_at(const Path& directory, const std::string& part);

// DataError where the model reads another tokenizer than the text was made with; `what` names the text.
void check_tokenizer(const OpenedModel& model, const data::TokenShards& text, const std::string& what);

}  // namespace retort::artifacts
