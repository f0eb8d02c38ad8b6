#include "recipes/stages/drafter.h"

#include <algorithm>

#include "core/error.h"

namespace retort::recipes {

std::string vocabulary_misfit(const data::Tokenizer& drafter, const data::Tokenizer& target) {
  constexpr size_t kShown = 3;
  std::vector<std::string> out;
  const auto both = static_cast<int32_t>(std::min(drafter.vocabulary(), target.vocabulary()));
  for (int32_t id = 0; id < both && out.size() < kShown; ++id) {
    const std::string_view a = drafter.token_bytes(id), b = target.token_bytes(id);
    if (a != b) out.push_back(fmt::format("token {} is {:?} to the drafter and {:?} to the model", id, a, b));
  }
  if (drafter.vocabulary() != target.vocabulary())
    out.push_back(
        fmt::format("the drafter has {} tokens, the model {}", drafter.vocabulary(), target.vocabulary()));
  return fmt::format("{}", fmt::join(out, "; "));
}

artifacts::OpenedModel open_drafter(const StageContext& context, const std::string& address,
                                    const artifacts::OpenedModel& target) {
  artifacts::OpenedModel drafter = context.open_model(address, context.log);
  if (drafter.tokenizer && target.tokenizer) {
    const std::string different = vocabulary_misfit(*drafter.tokenizer, *target.tokenizer);
    check<ConfigError>(
        different.empty(),
        "evaluate.drafter: {} must have the vocabulary of {}, for a drafted token to mean the same: {}",
        drafter.source, target.source, different);
  }
  const int64_t tokens = target.decoder->tokens();
  check<ConfigError>(
      drafter.decoder->vocabulary() >= tokens,
      "evaluate.drafter: {} must have the vocabulary of {}, for a drafted token to mean the same: the "
      "drafter has {} tokens, the model {}",
      drafter.source, target.source, drafter.decoder->vocabulary(), tokens);
  if (!drafter.tokenizer) drafter.decoder->set_tokens(tokens);
  return drafter;
}

}  // namespace retort::recipes
