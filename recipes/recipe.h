// Everything that a run is, typed. A recipe is a list of stages that run one after another; without `stages:`
// it is one training stage. The sections at the top level are every stage's defaults: a stage reads the top
// level overlaid by its own keys, and each kind of stage takes the sections that it needs (stage_kind.h).
//
//   defaults < base: (one level) < the file < --set key=value        later ones win, key by key
//
// Values; any thread. recipes/read_recipe.h reads and checks them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "recipes/address.h"
#include "recipes/claim.h"
#include "recipes/stage.h"

namespace retort::recipes {

struct RunOptions {
  std::string name;  // read_recipe() sets it: the file's name
  std::string dir;   // and this: runs/NAME
  int64_t seed = 1;
  int64_t threads = 0;  // 0: all
  std::string device = "auto";
  std::vector<std::string> text;
  void describe(Section& s);
};

struct Recipe {
  RunOptions run;
  std::optional<ClaimOptions> claim;
  std::vector<Stage> stages;
  const Stage* find(const std::string& stage) const;
  // The stage that an address stage:NAME names, or nullptr.
  const Stage* maker_of(const std::string& address) const;
  void describe(Section& s);  // prints as a recipe that reads to itself
};

// The two keys that every stage has.
void describe_header(Section& s, std::string& name, std::string& kind);

// What a recipe file may hold at its top level.
struct RecipeFile {
  std::string base;
  RunOptions run;
  std::optional<ClaimOptions> claim;
  Sections defaults;
  std::vector<Stage> stages;
  RecipeFile();
  void describe(Section& s);
};

}  // namespace retort::recipes
