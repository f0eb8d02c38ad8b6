// Text files to token shards, in DIRECTORY/train and DIRECTORY/validation.
#include "data/prepare.h"

#include "comm/together.h"
#include "data/templates/chat.h"
#include "data/templates/opened.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {
namespace {

std::vector<Input> inputs(const Recipe& recipe, const Stage& stage) {
  const auto& options = stage.get<data::PrepareOptions>();
  std::vector<Input> out = {{"prepare.tokenizer", options.tokenizer, Thing::kTokenizer}};
  for (const std::string& path : options.text) out.push_back({"prepare.text", path, Thing::kText});
  if (options.text.empty())
    for (const std::string& path : recipe.run.text) out.push_back({"run.text", path, Thing::kText});
  if (options.documents.conversations())
    out.push_back({"prepare.chat_template", options.documents.chat_template, Thing::kTemplate});
  return out;
}

// The stage would refuse to begin: the date of the day would give the same data other tokens tomorrow.
void check_date(StageCheck& check, const data::DocumentOptions& documents) {
  try {
    if (!documents.chat_date.empty())
      data::parse_date(documents.chat_date);
    else if (data::open_template(documents.chat_template).form.asks_date())
      check.add({"prepare.chat_date", "prepare.chat_template"},
                fmt::format("must be a date, YYYY-MM-DD, for chat template {}, which writes it; got none",
                            documents.chat_template));
  } catch (const ConfigError& error) {
    if (!documents.chat_date.empty()) check.add("prepare.chat_date", error.what());
  } catch (const Error&) {  // missing_files() says why it does not open
  }
}

void check_stage(StageCheck& check) {
  const auto& options = check.stage.get<data::PrepareOptions>();
  if (options.documents.conversations()) check_date(check, options.documents);
  if (options.text.empty())
    check.demand_texts("run.text", check.recipe.run.text);
  else
    check.demand_texts("prepare.text", options.text);
}

// What files hold counts, not their names; and no key of documents of another kind.
void forget(Stage& stage) {
  auto& prepare = stage.get<data::PrepareOptions>();
  prepare.text.clear();
  const data::DocumentOptions usual;
  if (prepare.documents.conversations())
    prepare.documents.field = usual.field;
  else
    prepare.documents.chat_template = usual.chat_template, prepare.documents.chat_date = usual.chat_date;
}

StageOutcome run(StageContext& context) {
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    data::PrepareOptions options = context.stage.get<data::PrepareOptions>();
    if (options.text.empty()) options.text = context.recipe.run.text;
    options.tokenizer = path_of(options.tokenizer, context.run).string();
    options.threads = context.threads;
    const data::PrepareReport report =
        data::prepare(options, context.directory, /*window=*/2, context.files, context.log);
    outcome.result = {{"train_tokens", report.train.tokens},
                      {"train_bytes", report.train.bytes},
                      {"validation_tokens", report.validation.tokens},
                      {"validation_bytes", report.validation.bytes}};
  });
  return outcome;
}

}  // namespace

StageKind prepare_stage() {
  return {.name = "prepare",
          .doc = "text files to token shards, split into training and validation",
          .sections = {section_kind<data::PrepareOptions>("prepare", "how text becomes token shards")},
          .makes = Thing::kShards,
          .figures = {"train_tokens", "train_bytes", "validation_tokens", "validation_bytes"},
          .continues = true,
          .inputs = inputs,
          .check = check_stage,
          .forget = forget,
          .run = run};
}

}  // namespace retort::recipes
