// A vocabulary out of the run's text: DIRECTORY/tokenizer.json, which prepare stages name as stage:NAME.
#include "data/tokenizers/bpe_training.h"

#include <set>

#include "comm/together.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {
namespace {

std::vector<Input> inputs(const Recipe& recipe, const Stage&) {
  std::vector<Input> out;
  for (const std::string& path : recipe.run.text) out.push_back({"run.text", path, Thing::kText});
  return out;
}

void check_stage(StageCheck& check) {
  check.demand_texts("run.text", check.recipe.run.text);
  const auto& options = check.stage.get<data::BpeTrainingOptions>();
  const auto least = 256 + static_cast<int64_t>(options.special.size());
  if (options.vocabulary < least)
    check.add({"tokenizer.vocabulary", "tokenizer.special"},
              fmt::format("must be at least {}, the bytes and the special tokens, got {}", least,
                          options.vocabulary));
  std::set<std::string> seen;
  for (const std::string& token : options.special)
    if (token.size() < 2 || !seen.insert(token).second)
      check.add("tokenizer.special",
                fmt::format("must be longer than a byte and named once, got \"{}\"", token));
}

StageOutcome run(StageContext& context) {
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    check<IoError>(!std::filesystem::exists(context.directory / "config.json"),
                   "{}: is a model's folder, whose tokenizer is not replaced; name another directory",
                   context.directory.string());
    data::BpeTrainingOptions options = context.stage.get<data::BpeTrainingOptions>();
    options.threads = context.threads;
    const auto tokenizer = data::train_tokenizer(context.recipe.run.text, context.directory, options,
                                                 context.files, context.log);
    outcome.result = {{"vocabulary", tokenizer->vocabulary()}, {"fingerprint", tokenizer->fingerprint()}};
  });
  return outcome;
}

}  // namespace

StageKind tokenizer_stage() {
  return {.name = "tokenizer",
          .doc = "a vocabulary made from the text, for prepare.tokenizer: stage:NAME",
          .sections = {section_kind<data::BpeTrainingOptions>("tokenizer", "a vocabulary of byte pairs")},
          .makes = Thing::kTokenizer,
          .figures = {"vocabulary"},
          .inputs = inputs,
          .check = check_stage,
          .run = run};
}

}  // namespace retort::recipes
