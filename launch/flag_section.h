// One more walk over an Options struct: its keys as flags of a verb, with the same words, defaults and rules as in
// a recipe. top_k becomes --top-k; a list's flag may be repeated; a switch that is on by default has --no-NAME.
// Nested sections have no flags. The options must outlive the parser.
#pragma once

#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "core/section.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace retort::launch {

inline constexpr const char* kModelForms =
    "a checkpoint, stage, run or HF directory, a .gguf file, or preset:NAME";

// A whole number of at least `low`, and at most `high`, which a message leaves out where it is no limit of ours.
CLI::Validator whole(int64_t low, int64_t high = std::numeric_limits<int64_t>::max());

class FlagSection final : public Section {
 public:
  // The keys of `only`, or all but those of `without`.
  FlagSection(CLI::App& verb, std::set<std::string> only = {}, std::set<std::string> without = {});
  // After parsing: ConfigError naming the flag, the rule and what came.
  void verify() const;
  static std::string flag_of(std::string_view key);  // "top_k" -> "--top-k"

 private:
  struct Flag {
    std::string name;
    std::function<std::string()> value;
    Check check;
  };
  void visit(Key key, Value value, const Check& check) override;
  bool enter(Key) override { return false; }
  bool enter_optional(Key, bool&) override { return false; }
  void leave() override {}
  size_t enter_list(Key, size_t size) override { return size; }
  bool enter_item(size_t) override { return false; }
  void leave_list() override {}

  CLI::App& verb_;
  std::set<std::string> only_, without_;
  std::vector<Flag> flags_;
};

}  // namespace retort::launch
