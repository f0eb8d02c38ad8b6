#include "launch/text_shards.h"

#include "core/error.h"

namespace retort::launch {

std::shared_ptr<const data::TokenShards> shards_at(const Path& directory, const std::string& part) {
  const Path inner = directory / part;
  return std::make_shared<data::TokenShards>(std::filesystem::is_directory(inner) ? inner : directory);
}

void check_tokenizer(const OpenedModel& model, const data::TokenShards& text, const std::string& what) {
  check<DataError>(!model.tokenizer || model.tokenizer->fingerprint() == text.tokenizer_fingerprint(),
                   "{}: {} reads tokenizer {}, the shards were made with {}", what, model.source,
                   model.tokenizer ? model.tokenizer->name() : "", text.tokenizer_name());
}

}  // namespace retort::launch
