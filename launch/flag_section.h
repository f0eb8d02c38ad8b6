// One more walk over an Options struct: its keys as flags of a verb, with the same words, defaults and rules
// as in a recipe. top_k becomes --top-k; a list's flag may be repeated. Nested sections have no flags. The
// options must outlive the parser.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/section.h"

namespace CLI {
class App;
}

namespace retort::launch {

class FlagSection final : public Section {
 public:
  FlagSection(CLI::App& verb, std::set<std::string> without = {});
  // After parsing: ConfigError naming the flag, the rule and what came.
  void verify() const;

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
  std::set<std::string> without_;
  std::vector<Flag> flags_;
};

}  // namespace retort::launch
