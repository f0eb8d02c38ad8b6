#include "recipes/explain_section.h"

#include "recipes/print_section.h"

namespace retort::recipes {
namespace {

const char* type_name(const bool*) { return "true or false"; }
const char* type_name(const int64_t*) { return "integer"; }
const char* type_name(const double*) { return "number"; }
const char* type_name(const std::string*) { return "text"; }
const char* type_name(const std::vector<std::string>*) { return "list of text"; }
const char* type_name(const std::vector<int64_t>*) { return "list of integers"; }
const char* type_name(const std::vector<double>*) { return "list of numbers"; }

}  // namespace

void ExplainSection::visit(Key key, Value value, const Check& check) {
  const std::string type = std::visit([](const auto* v) { return type_name(v); }, value);
  rows_.push_back(
      {prefixes_.back() + std::string(key.name), type, print_value(value), check.text, std::string(key.doc)});
}

bool ExplainSection::open(Key key, const char* type, const char* suffix) {
  const std::string name = prefixes_.back() + std::string(key.name) + suffix;
  rows_.push_back({name, type, "", "", std::string(key.doc)});
  prefixes_.push_back(name + ".");
  return true;
}

size_t ExplainSection::enter_list(Key key, size_t) {
  open(key, "list of sections", "[]");
  return 1;
}

bool ExplainSection::enter_item(size_t) {
  prefixes_.push_back(prefixes_.back());
  return true;
}

}  // namespace retort::recipes
