#include "artifacts/text_shards.h"

#include "core/error.h"

namespace retort::artifacts {

void check_tokenizer(const OpenedModel& model, const data::TokenShards& text, const std::string& what) {
  check<DataError>(!model.tokenizer || model.tokenizer->fingerprint() == text.tokenizer_fingerprint(),
                   "{}: {} reads tokenizer {}, the shards were made with {}", what, model.source,
                   model.tokenizer ? model.tokenizer->name() : "", text.tokenizer_name());
}

}  // namespace retort::artifacts
