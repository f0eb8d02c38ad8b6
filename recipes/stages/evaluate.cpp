// Tasks on any MODEL.
#include "recipes/stages/evaluate.h"

#include "comm/together.h"
#include "core/kept_pages.h"
#include "launch/score.h"
#include "launch/text_shards.h"
#include "recipes/data_options.h"
#include "recipes/inputs.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {
namespace {

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  const auto& options = stage.get<EvaluateOptions>();
  if (options.text.empty()) return {model_input(stage), validation_input(stage)};
  const bool shards = stage_of(options.text) || std::filesystem::is_directory(options.text);
  return {model_input(stage),
          {"evaluate.text", options.text, shards ? Thing::kShards : Thing::kText, "validation"}};
}

void check_stage(StageCheck& check) {
  check.demand_model();
  check.model_spec();
}

StageOutcome run(StageContext& context) {
  const KeptPages kept;
  StageOutcome outcome;
  (void)context;
  return outcome;
}

}  // namespace

void EvaluateOptions::describe(Section& s) {
  s.field("tasks", tasks, "tasks to run");
  s.field("text", text, "text file or token shards that text tasks read; data.validation when left out");
  s.field("limit", limit, "tokens of the text that count, from its start; 0: all", at_least<int64_t>(0));
}

StageKind evaluate_stage() {
  return {.name = "evaluate",
          .doc = "what a model makes of texts and tasks",
          .sections = {model_section(), data_section(),
                       section_kind<EvaluateOptions>("evaluate", "tasks, and their text")},
          .inputs = inputs,
          .check = check_stage,
          .run = run};
}

}  // namespace retort::recipes
