// Prompts and their continuations: a single one as it comes, several when they are done, or as lines of JSON;
// ids where there is no text. DIRECTORY/sample.txt keeps them.
#include "recipes/stages/generate.h"

#include <algorithm>

#include "comm/together.h"
#include "core/error.h"
#include "eval/complete.h"
#include "recipes/model_memory.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"
#include "train/precision.h"

namespace retort::recipes {
namespace {

using formats::Json;

std::vector<Input> inputs(const Recipe&, const Stage& stage) { return {model_input(stage)}; }

// The first of the ids that the model does not know, or why it cannot read them all.
std::string ids_misfit(const std::vector<int64_t>& ids, int64_t tokens, int64_t context) {
  for (const int64_t id : ids)
    if (std::string misfit = eval::id_misfit(id, tokens); !misfit.empty()) return misfit;
  return eval::length_misfit(std::ssize(ids), context);
}

void check_stage(StageCheck& check) {
  check.demand_model();
  const auto& options = check.stage.get<GenerateOptions>();
  if (options.prompt.empty() && options.ids.empty())
    check.add({"generate.prompt", "generate.ids"}, "must name a text to continue, or token ids");
  if (std::string misfit = eval::stop_misfit(options.sampling.stop); !misfit.empty())
    check.add("generate.stop", std::move(misfit));
  const std::string& from = check.stage.get<ModelOptions>().from;
  const auto spec = spec_of(check.recipe, from);
  if (options.ids.empty() && !options.prompt.empty())
    check.demand_tokenizer("generate.prompt", "model.from", from, "; generate.ids needs none");
  if (options.ids.empty()) return check.check_prompts("generate.prompt", options.prompt, from, spec);
  if (!spec) return;
  const auto tokenizer = tokenizer_of(check.recipe, from);
  const int64_t rows = spec->columns();
  const int64_t tokens = tokenizer ? std::min(rows, tokenizer->vocabulary()) : rows;
  if (const std::string misfit = ids_misfit(options.ids, tokens, spec->context); !misfit.empty())
    check.add({"generate.ids", "model.vocabulary", "model.from"}, misfit);
}

// One prompt's line.
std::string json_line(Json line, const std::vector<int32_t>& prompt, const eval::Continuation& tokens) {
  line.update({{"prompt_ids", prompt},
               {"ids", tokens.ids},
               {"finish", eval::finish_name(tokens.finish)},
               {"first_token_seconds", tokens.first_seconds},
               {"tokens_per_second", tokens.tokens_per_second()}});
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// Each returns how many tokens were made.
size_t continue_ids(const StageContext& context, const artifacts::OpenedModel& model,
                    const GenerateOptions& options) {
  eval::GenerateHooks hooks;
  hooks.ends = model.ends();
  hooks.on_token = [&](size_t, int32_t id) { return options.json || context.print(fmt::format("{} ", id)); };
  const std::string misfit = ids_misfit(options.ids, model.decoder->tokens(), model.decoder->context());
  check<DataError>(misfit.empty(), "generate.ids: {}", misfit);  // before they are made 32 bits wide
  const std::vector<int32_t> prompt(options.ids.begin(), options.ids.end());
  const eval::Continuation out = eval::generate(*model.decoder, {prompt}, options.sampling, hooks).front();
  context.print(options.json ? json_line(Json::object(), prompt, out) : "\n");
  return out.ids.size();
}

size_t continue_texts(const StageContext& context, const artifacts::OpenedModel& model,
                      const GenerateOptions& options) {
  const data::Tokenizer& tokenizer = model.need_tokenizer();
  for (const std::string& prompt : options.prompt)
    check<ConfigError>(!tokenizer.prefix().empty() || !tokenizer.encode(prompt).empty(),
                       "generate.prompt: each must come to at least one token, got \"{}\"", prompt);
  const bool streams = options.prompt.size() == 1 && !options.json;
  if (streams) context.print(options.prompt[0]);
  const std::vector<eval::Completion> all = eval::complete(
      *model.decoder, tokenizer, options.prompt, options.sampling,
      [&](size_t, std::string_view text) { return !streams || context.print(text); }, model.ends());
  if (streams) context.print("\n");
  size_t tokens = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    tokens += all[i].tokens.ids.size();
    if (!streams)
      context.print(options.json ? json_line({{"prompt", options.prompt[i]}, {"text", all[i].text}},
                                             all[i].prompt, all[i].tokens)
                                 : options.prompt[i] + all[i].text + "\n");
  }
  return tokens;
}

StageOutcome run(StageContext& context) {
  StageOutcome outcome;
  GenerateOptions options = context.stage.get<GenerateOptions>();
  options.sampling.seed = context.seed();
  artifacts::OpenedModel model;
  comm::on_rank_zero(
      context.comm, [&] { model = context.open_model(context.stage.get<ModelOptions>().from, context.log); });
  const at::ScalarType dtype = context.precision(options.precision, context.comm, context.log);
  comm::on_rank_zero(context.comm, [&] {
    models::bind_working(model.decoder->parameters(), model.map(), dtype);
    bring_to_device("the model", *model.decoder, context.device);
    if (!context.alone()) context.print(fmt::format("--- {} ---\n", model.source));
    const auto body = options.ids.empty() ? continue_texts : continue_ids;
    work_with({model.decoder.get()}, context.device, "generation",
              "fewer prompts at once or generate.tokens need less", [&] {
                outcome.result = {{"model", model.source}, {"generated", body(context, model, options)}};
              });
  });
  return outcome;
}

}  // namespace

void GenerateOptions::describe(Section& s) {
  s.field("prompt", prompt, "texts to continue, in one batch");
  s.field("ids", ids, "token ids to continue instead of prompt");
  sampling.describe(s);
  s.field(
      "precision", precision,
      "precision of the weights: bf16 halves what a token reads; auto: bf16 where products are faster in it",
      one_of(train::precision_names()));
  s.field("json", json, "print a line of JSON for each prompt: prompt, text, ids, finish, tokens_per_second");
}

StageKind generate_stage() {
  return {.name = "generate",
          .doc = "text from a model",
          .sections = {model_section(),
                       section_kind<GenerateOptions>("generate", "what to continue, and how to draw")},
          .figures = {"generated"},
          .product = "sample.txt",
          .seeded = true,
          .inputs = inputs,
          .check = check_stage,
          .run = run};
}

}  // namespace retort::recipes
