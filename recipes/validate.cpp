#include "recipes/validate.h"
#include "recipes/device.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/nearest.h"
#include "data/prepare.h"
#include "recipes/inputs.h"
#include "recipes/presets.h"

namespace retort::recipes {
namespace {

// A stage of the recipe, by its bare name.
std::string stage_meant(const Recipe& recipe, const Input& input) {
  std::error_code ignored;
  const Stage* made = std::filesystem::exists(input.address, ignored) ? nullptr : recipe.find(input.address);
  if (made == nullptr || kind_of(*made).makes != input.thing) return "";
  return fmt::format("; did you mean stage:{}?", made->name);
}

// The name becomes a directory of runs/, and of no other place, unless run.dir is another.
bool names_elsewhere(const RunOptions& run) {
  const bool path = run.name.find('/') != run.name.npos || run.name == "." || run.name == "..";
  return path && (run.dir.empty() || run.dir == "runs/" + run.name);
}

// A directory that is there or can be made: what is there of it, from its end, is a directory.
std::string directory_misfit(const Path& dir) {
  std::error_code ignored;
  Path there = dir;
  while (!there.empty() && !std::filesystem::exists(there, ignored)) there = there.parent_path();
  if (there.empty() || std::filesystem::is_directory(there, ignored)) return "";
  if (there == dir) return fmt::format("must be a directory, got the file {}", dir.string());
  return fmt::format("must be a directory, got {}, and {} is a file", dir.string(), there.string());
}

// The earlier stages that make a thing.
std::vector<std::string> earlier(const StageCheck& check, Thing thing) {
  const std::vector<std::string> kinds = makers_of(thing);
  std::vector<std::string> names;
  for (const Stage& stage : check.recipe.stages) {
    if (&stage == &check.stage) break;
    if (std::find(kinds.begin(), kinds.end(), stage.kind()) != kinds.end()) names.push_back(stage.name);
  }
  return names;
}

void check_stage_name(StageCheck& check, const Input& input, const std::string& name) {
  const std::vector<std::string> known = earlier(check, input.thing), kinds = makers_of(input.thing);
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  std::string why = fmt::format("no earlier stage \"{}\"{}", name, did_you_mean(name, known));
  if (const Stage* other = check.recipe.find(name)) {
    const bool kind_fits = std::find(kinds.begin(), kinds.end(), other->kind()) != kinds.end();
    why = kind_fits ? fmt::format("stage \"{}\" must come earlier", name)
                    : fmt::format("stage \"{}\" must be of kind {}, got {}", name, fmt::join(kinds, ", "),
                                  other->kind());
  }
  check.add(input.key.c_str(), std::move(why));
}

// A part that the stage of a name does not make.
void check_part(StageCheck& check, const Input& input) {
  const Stage* made = check.recipe.maker_of(input.address);
  if (made == nullptr || input.part != "validation") return;
  const auto* prepare = made->find<data::PrepareOptions>();
  if (prepare == nullptr && kind_of(*made).makes == Thing::kShards)
    check.add(input.key.c_str(),
              fmt::format("needs a validation part, and a stage of kind {} makes none", made->kind()));
  if (prepare != nullptr && prepare->validation == 0)
    check.add({input.key, fmt::format("stages.{}.prepare.validation", made->name)},
              fmt::format("needs a validation part, and stage {} makes none: its prepare.validation is 0",
                          made->name));
}

void check_preset(StageCheck& check, const Input& input, const std::string& name) {
  const auto known = preset_names();
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  check.add(input.key.c_str(), fmt::format("unknown preset \"{}\"{}; known: {}", name,
                                           did_you_mean(name, known), fmt::join(known, ", ")));
}

}  // namespace

std::vector<Finding> validate(const Recipe& recipe, int64_t ranks, bool alone) {
  std::vector<Finding> findings;
  if (recipe.stages.empty()) findings.push_back({"", {"stages"}, "must name at least one stage, got none"});
  if (names_elsewhere(recipe.run))
    findings.push_back(
        {"",
         {"run.name"},
         fmt::format("must be a name without /, got \"{}\"; run.dir may be any directory", recipe.run.name)});
  // How many of the launch's ranks are on this machine is not known here; but one GPU is for one rank
  // anywhere.
  const int64_t sharing = most_ranks(recipe, recipe.run.device.starts_with("cuda:") ? ranks : 1);
  if (std::string misfit = device_misfit(recipe.run.device, sharing); !misfit.empty())
    findings.push_back({"", {"run.device"}, std::move(misfit)});
  std::set<std::string> names;
  for (const Stage& stage : recipe.stages) {
    StageCheck check(recipe, stage, ranks, alone, findings);
    if (!names.insert(stage.name).second)
      check.add("name", fmt::format("two stages are called \"{}\"", stage.name));
    for (const Input& input : inputs_of(recipe, stage)) {
      if (const auto name = stage_of(input.address)) check_stage_name(check, input, *name);
      check_part(check, input);
      if (std::string trouble = trouble_with_kind(recipe, stage, input); !trouble.empty())
        check.add(input.key.c_str(), std::move(trouble));
      if (const auto name = preset_of(input.address)) check_preset(check, input, *name);
    }
    if (kind_of(stage).check != nullptr) kind_of(stage).check(check);
  }
  if (recipe.claim)
    for (Finding& finding : validate_claim(recipe)) findings.push_back(std::move(finding));
  return findings;
}

std::vector<Finding> missing_files(const Recipe& recipe) {
  std::vector<Finding> out;
  if (std::string misfit = directory_misfit(recipe.run.dir); !misfit.empty())
    out.push_back({"", {"run.dir"}, std::move(misfit)});
  for (const Stage& stage : recipe.stages)
    for (const Input& input : inputs_of(recipe, stage)) {
      std::string trouble = trouble_with(input);
      if (!trouble.empty()) trouble += stage_meant(recipe, input);
      const bool known = std::any_of(out.begin(), out.end(), [&](const Finding& finding) {
        return input.key.starts_with("run.") && finding.keys.front() == input.key && finding.text == trouble;
      });
      const std::string owner = input.key.starts_with("run.") ? "" : stage.name;
      if (!trouble.empty() && !known) out.push_back({owner, {input.key}, trouble});
    }
  return out;
}

}  // namespace retort::recipes
