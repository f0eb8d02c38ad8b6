#include "recipes/stages/second_model.h"

#include <algorithm>

#include "core/error.h"

namespace retort::recipes {

std::string vocabulary_misfit(const std::string& noun, const data::Tokenizer& second,
                              const data::Tokenizer& first) {
  constexpr size_t kShown = 3;
  std::vector<std::string> out;
  const auto both = static_cast<int32_t>(std::min(second.vocabulary(), first.vocabulary()));
  for (int32_t id = 0; id < both && out.size() < kShown; ++id) {
    const std::string_view a = second.token_bytes(id), b = first.token_bytes(id);
    if (a != b)
      out.push_back(fmt::format("token {} is {:?} to the {} and {:?} to the model", id, a, noun, b));
  }
  if (second.vocabulary() != first.vocabulary())
    out.push_back(
        fmt::format("the {} has {} tokens, the model {}", noun, second.vocabulary(), first.vocabulary()));
  return fmt::format("{}", fmt::join(out, "; "));
}

artifacts::OpenedModel open_second(const StageContext& context, const std::string& noun,
                                   const std::string& address, const artifacts::OpenedModel& first) {
  artifacts::OpenedModel second = context.open_model(address, context.log);
  const std::string rule =
      fmt::format("evaluate.{}: {} must have the vocabulary of {}, for a token to mean the same: ", noun,
                  second.source, first.source);
  if (second.tokenizer && first.tokenizer) {
    const std::string different = vocabulary_misfit(noun, *second.tokenizer, *first.tokenizer);
    check<ConfigError>(different.empty(), "{}{}", rule, different);
  }
  const int64_t tokens = first.decoder->tokens();
  check<ConfigError>(second.decoder->vocabulary() >= tokens, "{}the {} has {} tokens, the model {}", rule,
                     noun, second.decoder->vocabulary(), tokens);
  if (!second.tokenizer) second.decoder->set_tokens(tokens);
  return second;
}

}  // namespace retort::recipes
