// The kinds of stage: one file and one row each. Everything else derives from the row: what a recipe may write,
// what is checked and when, what a stage's identity holds, the order of stages, documentation, claims, reports.
// A body runs on every rank of its context's group and returns what result.json keeps.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/registry.h"
#include "recipes/stage.h"

namespace retort::recipes {

struct Recipe;        // recipes/recipe.h
struct StageContext;  // recipes/stage_context.h
struct StageOutcome;
class StageCheck;  // recipes/stage_check.h

// What a stage can take, from a file or from an earlier stage that makes such a thing.
enum class Thing { kModel, kShards, kTokenizer, kTemplate, kCache, kText, kFile, kResult };

struct Input {
  std::string key;      // that names it: "data.train"
  std::string address;  // a path, stage:NAME or preset:NAME
  Thing thing = Thing::kModel;
  std::string part = {};  // of shards: "train" or "validation"
};

struct StageKind {
  std::string name, doc;
  std::vector<SectionKind> sections;
  std::optional<Thing> makes = {};        // what stage:NAME of it stands for
  std::vector<std::string> figures = {};  // numbers of its result.json
  std::string product = {};  // the file in its directory that keeps what it prints; "": prints nothing
  bool continues = false;    // finds its own earlier work in its directory
  bool resumes = false;      // can go on from a checkpoint of another run
  bool seeded = false;       // run.seed decides what comes out

  // All that it reads: the one list. Addresses are not empty.
  std::vector<Input> (*inputs)(const Recipe& recipe, const Stage& stage);
  // What must hold between its keys, beyond their own rules and what inputs() shows.
  void (*check)(StageCheck& check) = nullptr;
  // Sets keys that decide nothing of what comes out to their defaults: they are not in the stage's identity.
  void (*forget)(Stage& stage) = nullptr;
  // The length of its work, in whatever the stage is told it. Work that differs only in a smaller length is what the
  // stage goes on from, where it can (StageContext::shorter).
  double (*length)(const Stage& stage) = nullptr;
  void (*set_length)(Stage& stage, double length) = nullptr;
  // What `retort check` says of it.
  std::string (*plan)(const Recipe& recipe, const Stage& stage, int64_t ranks) = nullptr;
  StageOutcome (*run)(StageContext& context) = nullptr;
};

const Registry<StageKind>& stage_kinds();        // recipes/stages/registry.cpp
const std::vector<SectionKind>& all_sections();  // of all kinds, each once

const StageKind& kind_of(const Stage& stage);
std::vector<Input> inputs_of(const Recipe& recipe, const Stage& stage);
// The earlier stages that a stage takes something from, in the order of its inputs, each once.
std::vector<std::string> stages_before(const Recipe& recipe, const Stage& stage);
// The stages of a kind and all that they need, in the recipe's order.
std::vector<std::string> needed_for(const Recipe& recipe, const std::string& kind);
// The kinds that make a thing.
std::vector<std::string> makers_of(Thing thing);

}  // namespace retort::recipes
