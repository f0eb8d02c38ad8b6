// Reads a tree of YAML into an Options struct: the reading Section. Strict: integers are decimal without
// leading zeros, `3.0` is no integer, booleans are true and false, numbers are never quoted, unknown keys are
// problems. A single value may stand for a list of one. A value that breaks a rule is reported and the
// default stays, so that one mistake is one problem.
#pragma once

#include <string>
#include <vector>

#include "core/section.h"
#include "recipes/yaml_tree.h"

namespace retort::recipes {

class YamlSection final : public Section {
 public:
  YamlSection(const Node& root, Problems& problems);
  void finish();  // after the walk: the unknown keys of the top level

 private:
  void visit(Key key, Value value, const Check& check) override;
  bool enter(Key key) override;
  bool enter_optional(Key key, bool& present) override;
  void leave() override;
  size_t enter_list(Key key, size_t size) override;
  bool enter_item(size_t index) override;
  void leave_list() override;

  struct Frame {
    const Node* node;
    std::vector<std::string> known;  // keys visited in it
  };
  const Node* member(std::string_view name);
  bool push(const Node& node);  // a problem unless it is a map
  void report(const Node& node, std::string text) {
    problems_.push_back({node.mark, node.path, std::move(text)});
  }

  Problems& problems_;
  std::vector<Frame> frames_;
  std::vector<const Node*> lists_;  // nullptr: absent
};

template <class Options>
void read_section(const Node& node, Options& options, Problems& problems) {
  YamlSection section(node, problems);
  options.describe(section);
  section.finish();
}

}  // namespace retort::recipes
