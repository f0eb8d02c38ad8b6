#include "recipes/stage.h"

#include <algorithm>

#include "recipes/recipe.h"
#include "recipes/stage_kind.h"

namespace retort::recipes {

Sections::Sections(std::vector<SectionKind> kinds) : kinds_(std::move(kinds)) {
  for (const SectionKind& kind : kinds_) values_.push_back(kind.defaults);
}

void Sections::describe(Section& s) {
  for (size_t i = 0; i < kinds_.size(); ++i) kinds_[i].describe(s, kinds_[i], values_[i]);
}

Stage::Stage(const std::string& kind, std::string name)
    : name(std::move(name)), kind_(kind), sections_(stage_kinds().at(kind).sections) {}

void Stage::describe(Section& s) {
  const std::string before = kind_;
  describe_header(s, name, kind_);
  if (kind_ != before) sections_ = Sections(stage_kinds().at(kind_).sections);
  sections_.describe(s);
}

const std::vector<SectionKind>& all_sections() {
  static const std::vector<SectionKind> all = [] {
    std::vector<SectionKind> out;
    for (const StageKind& kind : stage_kinds())
      for (const SectionKind& section : kind.sections)
        if (std::none_of(out.begin(), out.end(),
                         [&](const auto& known) { return known.name == section.name; }))
          out.push_back(section);
    return out;
  }();
  return all;
}

const StageKind& kind_of(const Stage& stage) { return stage_kinds().at(stage.kind()); }

std::vector<Input> inputs_of(const Recipe& recipe, const Stage& stage) {
  std::vector<Input> inputs = kind_of(stage).inputs(recipe, stage);
  std::erase_if(inputs, [](const Input& input) { return input.address.empty(); });
  return inputs;
}

std::vector<std::string> stages_before(const Recipe& recipe, const Stage& stage) {
  std::vector<std::string> out;
  for (const Input& input : inputs_of(recipe, stage))
    if (const auto name = stage_of(input.address);
        name && std::find(out.begin(), out.end(), *name) == out.end())
      out.push_back(*name);
  return out;
}

std::vector<std::string> needed_for(const Recipe& recipe, const std::string& kind) {
  std::vector<std::string> wanted, in_order;
  const auto is_wanted = [&](const Stage& stage) {
    return std::find(wanted.begin(), wanted.end(), stage.name) != wanted.end();
  };
  for (auto stage = recipe.stages.rbegin(); stage != recipe.stages.rend(); ++stage) {  // inputs come earlier
    if (stage->kind() != kind && !is_wanted(*stage)) continue;
    wanted.push_back(stage->name);
    for (const std::string& input : stages_before(recipe, *stage)) wanted.push_back(input);
  }
  for (const Stage& stage : recipe.stages)
    if (is_wanted(stage)) in_order.push_back(stage.name);
  return in_order;
}

std::vector<std::string> makers_of(Thing thing) {
  std::vector<std::string> names;
  for (const StageKind& kind : stage_kinds())
    if (kind.makes == thing || thing == Thing::kResult) names.push_back(kind.name);
  return names;
}

}  // namespace retort::recipes
