// Writes an Options struct back as YAML that reads to the same struct: how a resolved recipe, and a section
// that a checkpoint keeps, are stored. Numbers are printed so that they read back to the same bits.
#pragma once

#include <string>
#include <string_view>

#include "core/section.h"

namespace retort::recipes {

// A value as one YAML scalar, quoted where it must be.
std::string yaml_scalar(const std::string& text);

class PrintSection final : public Section {
 public:
  const std::string& text() const { return text_; }

 private:
  void visit(Key key, Value value, const Check& check) override;
  bool enter(Key key) override;
  bool enter_optional(Key key, bool& present) override;
  void leave() override;
  size_t enter_list(Key key, size_t size) override;
  bool enter_item(size_t index) override;
  void leave_list() override;
  void line(std::string_view key, std::string_view value);

  std::string text_;
  std::vector<size_t> depths_ = {0};  // of the open sections
  bool dash_ = false;                 // the next line starts a list item
};

template <class Options>
std::string print_section(Options options) {
  PrintSection section;
  options.describe(section);
  return section.text();
}

// One value as a recipe would write it: 0.1, [a, b], "two words".
std::string print_value(const std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*,
                                           std::vector<int64_t>*, std::vector<double>*>& value);

}  // namespace retort::recipes
