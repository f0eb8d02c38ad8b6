// Token shards that a verb or a stage reads a text from.
#pragma once

#include <memory>
#include <string>

#include "data/token_shards.h"
#include "launch/model_address.h"

namespace retort::launch {

// Those of DIRECTORY, or of DIRECTORY/part where `retort data prepare` made it.
std::shared_ptr<const data::TokenShards> shards_at(const Path& directory, const std::string& part);

// DataError where the model reads another tokenizer than the text was made with; `what` names the text.
void check_tokenizer(const OpenedModel& model, const data::TokenShards& text, const std::string& what);

}  // namespace retort::launch
