// Documents an Options struct: one row a key, with type, default, rule and meaning. The source of
// `retort recipe explain` and docs/recipe.md. Optional sections and lists are documented by a default
// element.
#pragma once

#include <string>
#include <vector>

#include "core/section.h"

namespace retort::recipes {

struct KeyDoc {
  std::string key;       // "distill.losses[].weight"
  std::string type;      // "integer", "section", "optional section", "list of sections"
  std::string fallback;  // the default, as a recipe would write it; empty for sections
  std::string rule;      // "> 0"; may be empty
  std::string doc;
  bool is_section() const { return type.ends_with("section") || type.ends_with("sections"); }
};

class ExplainSection final : public Section {
 public:
  const std::vector<KeyDoc>& rows() const { return rows_; }

 private:
  void visit(Key key, Value value, const Check& check) override;
  bool enter(Key key) override { return open(key, "section", ""); }
  bool enter_optional(Key key, bool&) override { return open(key, "optional section", ""); }
  void leave() override { prefixes_.pop_back(); }
  size_t enter_list(Key key, size_t) override;
  bool enter_item(size_t) override;
  void leave_list() override { prefixes_.pop_back(); }
  bool documents_only() const override { return true; }
  bool open(Key key, const char* type, const char* suffix);

  std::vector<KeyDoc> rows_;
  std::vector<std::string> prefixes_ = {""};
};

template <class Options>
std::vector<KeyDoc> explain_section(Options options = {}) {
  ExplainSection section;
  options.describe(section);
  return section.rows();
}

}  // namespace retort::recipes
