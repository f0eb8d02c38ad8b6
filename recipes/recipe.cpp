#include "recipes/recipe.h"

#include <algorithm>
#include <cctype>

#include "recipes/device.h"
#include "recipes/stage_kind.h"

namespace retort::recipes {
namespace {

constexpr const char* kClaim = "a statement to test: all stages run for every seed, then bars are judged";

Rule<std::string> name_rule() {
  return {"letters, digits, _ and -",
          [](const std::string& name) {
            return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
              return std::isalnum(c) != 0 || c == '_' || c == '-';
            });
          },
          {}};
}

}  // namespace

void RunOptions::describe(Section& s) {
  s.field("name", name, "name of the run; by default that of the recipe file");
  s.field("dir", dir, "directory that the run writes to; by default runs/NAME");
  s.field("seed", seed, "seed of weights, data order and sampling", at_least<int64_t>(0));
  s.field("threads", threads, "threads of this process, shared by its ranks; 0: all processors",
          between<int64_t>(0, 1024));
  s.field("device", device,
          "device of the models that are trained and scored; auto: a GPU where there is one, and the log "
          "says why not",
          device_rule());
  s.field("text", text, "text files that tokenizer and prepare stages read");
}

const Stage* Recipe::find(const std::string& stage) const {
  const auto found =
      std::find_if(stages.begin(), stages.end(), [&](const Stage& s) { return s.name == stage; });
  return found == stages.end() ? nullptr : &*found;
}

const Stage* Recipe::maker_of(const std::string& address) const {
  const auto name = stage_of(address);
  return name ? find(*name) : nullptr;
}

void Recipe::describe(Section& s) {
  s.section("run", run, "the run as a whole");
  s.optional("claim", claim, kClaim);
  s.list("stages", stages, "what it does, in order");
}

void describe_header(Section& s, std::string& name, std::string& kind) {
  s.field("name", name, "name of its directory in the run's, and of stage:NAME", name_rule());
  s.field("kind", kind, "kind of stage, which decides what sections it takes", one_of(stage_kinds().names()));
}

RecipeFile::RecipeFile() : defaults(all_sections()) {}

void RecipeFile::describe(Section& s) {
  s.field("base", base,
          "recipe to start from: a path beside this file, or the name of a shipped one; one level");
  s.section("run", run, "the run as a whole");
  s.optional("claim", claim, kClaim);
  defaults.describe(s);
  struct Header {
    std::string name, kind = "train";
    void describe(Section& s) { describe_header(s, name, kind); }
  };
  std::vector<Header> headers(stages.size());
  s.list("stages", headers, "stages of the run, in order; without it: one that trains");
}

}  // namespace retort::recipes
