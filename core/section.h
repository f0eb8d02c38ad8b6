// One walk over an Options struct. Each Options has a single method that names its keys:
//
//   void AdamWOptions::describe(Section& s) {
//     s.field("lr", lr, "peak learning rate", above(0.0));
//     s.optional("teacher", teacher, "where the teacher's signal comes from");
//   }
//
// Reading YAML, printing a recipe back, and explaining a key are three Sections (in recipes/), so a knob
// has one home, one default and one line of documentation. Defaults are the members' initialisers.
// A Section never throws on the user's mistakes; the reading one collects them all with file:line:column.
// Not thread-safe; a walk is short and single-threaded.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace retort {

// What a legal value obeys, in words ("> 0") and as a test.
template <class T>
struct Rule {
  std::string text;
  std::function<bool(const T&)> holds;  // empty: everything is legal
  std::vector<std::string> choices;     // for names: the legal ones
};

template <class T>
Rule<T> above(T low) {
  return {fmt::format("> {}", low), [low](const T& v) { return v > low; }, {}};
}
template <class T>
Rule<T> at_least(T low) {
  return {fmt::format(">= {}", low), [low](const T& v) { return v >= low; }, {}};
}
template <class T>
Rule<T> between(T low, T high) {
  return {
      fmt::format("in [{}, {}]", low, high), [low, high](const T& v) { return v >= low && v <= high; }, {}};
}
inline Rule<std::string> one_of(std::vector<std::string> names) {
  Rule<std::string> rule;
  rule.text = fmt::format("one of {}", fmt::join(names, ", "));
  rule.holds = [names](const std::string& v) {
    for (const std::string& n : names)
      if (n == v) return true;
    return false;
  };
  rule.choices = std::move(names);
  return rule;
}

class Section {
 public:
  virtual ~Section() = default;

  // Scalars and lists of scalars. `doc` is one line: meaning, unit, when to change it.
  void field(std::string_view name, bool& v, std::string_view doc) { visit({name, doc}, &v, {}); }
  void field(std::string_view name, int64_t& v, std::string_view doc, Rule<int64_t> rule = {}) {
    visit({name, doc}, &v, checked(rule, v));
  }
  void field(std::string_view name, double& v, std::string_view doc, Rule<double> rule = {}) {
    visit({name, doc}, &v, checked(rule, v));
  }
  void field(std::string_view name, std::string& v, std::string_view doc, Rule<std::string> rule = {}) {
    visit({name, doc}, &v, checked(rule, v));
  }
  void field(std::string_view name, std::vector<std::string>& v, std::string_view doc) {
    visit({name, doc}, &v, {});
  }
  void field(std::string_view name, std::vector<int64_t>& v, std::string_view doc) {
    visit({name, doc}, &v, {});
  }
  void field(std::string_view name, std::vector<double>& v, std::string_view doc) {
    visit({name, doc}, &v, {});
  }

  // A nested section that always exists.
  template <class Options>
  void section(std::string_view name, Options& options, std::string_view doc) {
    if (enter({name, doc})) {
      options.describe(*this);
      leave();
    }
  }

  // A nested section whose absence means something.
  template <class Options>
  void optional(std::string_view name, std::optional<Options>& options, std::string_view doc) {
    bool present = options.has_value();
    if (enter_optional({name, doc}, present)) {
      if (!options) options.emplace();
      options->describe(*this);
      leave();
    }
    if (!present) options.reset();
  }

  // A list of sections.
  template <class Options>
  void list(std::string_view name, std::vector<Options>& options, std::string_view doc) {
    const size_t count = enter_list({name, doc}, options.size());
    std::vector<Options> prototype;  // a Section that only documents visits one default element
    std::vector<Options>& target = documents_only() ? prototype : options;
    target.resize(documents_only() ? 1 : count);
    for (size_t i = 0; i < target.size(); ++i) {
      if (!enter_item(i)) continue;
      target[i].describe(*this);
      leave();
    }
    leave_list();
  }

 protected:
  struct Key {
    std::string_view name, doc;
  };
  using Value = std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*,
                             std::vector<int64_t>*, std::vector<double>*>;
  // The rule with its type erased: `holds` tests the pointer's value at the time of the check.
  struct Check {
    std::string text;
    std::function<bool()> holds;
    std::vector<std::string> choices;
  };

  virtual void visit(Key key, Value value, const Check& check) = 0;
  virtual bool enter(Key key) = 0;                          // false: skip this section
  virtual bool enter_optional(Key key, bool& present) = 0;  // sets present; false: skip
  virtual void leave() = 0;
  virtual size_t enter_list(Key key, size_t size) = 0;  // the number of items to visit
  virtual bool enter_item(size_t index) = 0;
  virtual void leave_list() = 0;
  virtual bool documents_only() const { return false; }

 private:
  template <class T>
  static Check checked(const Rule<T>& rule, const T& value) {
    if (!rule.holds) return {rule.text, {}, rule.choices};
    return {rule.text, [holds = rule.holds, &value] { return holds(value); }, rule.choices};
  }
};

}  // namespace retort
