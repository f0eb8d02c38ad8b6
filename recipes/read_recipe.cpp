#include "recipes/read_recipe.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/nearest.h"
#include "recipes/model_options.h"
#include "recipes/shipped.h"
#include "recipes/stage_kind.h"
#include "recipes/stages/initial_model.h"
#include "recipes/validate.h"
#include "recipes/yaml_section.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

struct Source {
  std::string name;  // as errors cite it
  std::string text;
};

// "; did you mean runs/kjv/recipe.yaml?": what a run keeps in its directory.
std::string did_you_mean_within(const Path& directory) {
  std::error_code ignored;
  const Path kept = directory / "recipe.yaml";
  return std::filesystem::is_regular_file(kept, ignored) ? fmt::format("; did you mean {}?", kept.string())
                                                         : "";
}

// At most five names that the word is part of, or else the nearest one.
std::vector<std::string> near_names(const std::string& word, const std::vector<std::string>& known) {
  std::vector<std::string> near;
  for (const std::string& name : known)
    if (!word.empty() && near.size() < 5 && name.find(word) != std::string::npos) near.push_back(name);
  if (near.empty())
    if (std::string one = nearest_name(word, known); !one.empty()) near.push_back(std::move(one));
  return near;
}

Source open_source(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(name, ignored)) {
    check<ConfigError>(std::filesystem::file_size(name) <= kLargestYaml,
                       "{}: must be at most {} bytes, got {}", name, kLargestYaml,
                       std::filesystem::file_size(name));
    return {name, read_text(name, kLargestYaml)};
  }
  if (const ShippedRecipe* shipped = find_shipped(name))
    return {"shipped:" + name, std::string(shipped->text)};
  check<ConfigError>(!std::filesystem::is_directory(name, ignored),
                     "{}: must be a recipe's file or a shipped recipe's name, got a directory{}", name,
                     did_you_mean_within(name));
  const std::vector<std::string> known = shipped_names();
  const std::vector<std::string> near = near_names(name, known);
  fail<ConfigError>("{}: no such recipe{} (`retort recipe list` names the shipped ones)", name,
                    near.empty() ? "" : fmt::format("; near it: {}", fmt::join(near, ", ")));
}

// A path beside the recipe, or else a shipped recipe's name.
Source open_base(const Node& base, const std::string& source, Problems& problems) {
  const Path beside = Path(source).parent_path() / base.scalar;
  std::error_code ignored;
  try {
    return open_source(std::filesystem::is_regular_file(beside, ignored) ? beside.string() : base.scalar);
  } catch (const ConfigError& error) {
    problems.push_back({base.mark, "base", error.what()});
    raise_if_any(std::move(problems));  // without it most keys would look wrong
    throw;
  }
}

Node without(Node map, std::string_view member) {
  std::erase_if(map.children, [&](const Node& child) { return child.name == member; });
  return map;
}

Node empty_map(const Mark& mark) {
  Node map;
  map.kind = Node::Kind::kMap;
  map.mark = map.name_mark = mark;
  return map;
}

struct MergedTree {
  Node tree;
  std::string base = {};  // where the base was read; "": there is none
};

// The file over its base, --set over both.
MergedTree merged_tree(const Source& source, const std::vector<std::string>& sets, Problems& problems) {
  Node tree = parse_yaml(source.text, source.name, problems);
  if (tree.children.empty()) raise_if_any(problems);  // it is no YAML, and what it lacks is not known
  std::string base_name;
  if (const Node* base = tree.find("base")) {
    if (base->kind != Node::Kind::kScalar) {
      problems.push_back({base->mark, "base", "must be a recipe's path or name"});
    } else {
      const Source below = open_base(*base, source.name, problems);
      base_name = below.name;
      Node root = parse_yaml(below.text, below.name, problems);
      if (const Node* second = root.find("base"))
        problems.push_back({second->mark, "base", "a base must not have a base of its own: one level"});
      tree = overlay(without(std::move(root), "base"), without(std::move(tree), "base"));
    }
  }
  for (const std::string& assignment : sets) set_value(tree, assignment, problems);
  return {without(std::move(tree), "base"), base_name};
}

// Whether the section holds the key that comes instead of all its others.
bool has_instead(const SectionKind& kind, const Node& section) {
  const Node* key = kind.instead.empty() ? nullptr : section.find(kind.instead);
  return key != nullptr && (key->kind != Node::Kind::kScalar || !key->scalar.empty());
}

// Both at once would leave open which holds: start from a MODEL, or describe a new one.
void check_instead(const SectionKind& kind, Node& section, Problems& problems) {
  if (!has_instead(kind, section)) return;
  for (const Node& child : section.children)
    if (child.name != kind.instead)
      problems.push_back({child.name_mark, child.path,
                          fmt::format("must not stand beside {}, which comes instead of it", kind.instead)});
  std::erase_if(section.children, [&](const Node& child) { return child.name != kind.instead; });
}

Node* member_of(Node& map, std::string_view name) {
  for (Node& child : map.children)
    if (child.name == name) return &child;
  return nullptr;
}

std::vector<std::string> names_of(const std::vector<SectionKind>& sections) {
  std::vector<std::string> names;
  for (const SectionKind& section : sections) names.push_back(section.name);
  return names;
}

// Reads the stages of a merged tree, remembering the place of each key.
class Reader {
 public:
  Reader(Node tree, Problems& problems) : tree_(std::move(tree)), problems_(problems) {}

  Recipe read() {
    Recipe recipe;
    read_top(recipe);
    if (const Node* stages = tree_.find("stages")) {
      if (stages->kind == Node::Kind::kList)
        for (const Node& node : stages->children) read_stage(node, recipe);
      else if (stages->kind != Node::Kind::kRefused)
        problems_.push_back({stages->mark, "stages", "must be a list of stages"});
    } else {
      Node single = empty_map(tree_.mark);
      read_stage(single, recipe);
    }
    return recipe;
  }

  // Turns findings into problems where they belong, unless a key that takes part is a problem already.
  void add(const std::vector<Finding>& findings) {
    std::set<std::string> faulty;
    for (const Problem& problem : problems_) faulty.insert(problem.key);
    for (const Finding& finding : findings) {
      const bool known = std::any_of(finding.keys.begin(), finding.keys.end(), [&](const std::string& key) {
        const Node* node = locate(finding.stage, key);
        return node != nullptr && faulty.contains(node->path);
      });
      if (!known && !unread_.contains(finding.stage)) problems_.push_back(placed(finding));
    }
  }

 private:
  void read_top(Recipe& recipe) {
    struct Top {
      RunOptions& run;
      std::optional<ClaimOptions>& claim;
      Sections sections;
      void describe(Section& s) {
        s.section("run", run, "");
        s.optional("claim", claim, "");
        sections.describe(s);
      }
    } top{recipe.run, recipe.claim, Sections(all_sections())};
    Node without_stages = without(tree_, "stages");
    for (const SectionKind& kind : all_sections())
      if (Node* section = member_of(without_stages, kind.name)) check_instead(kind, *section, problems_);
    read_section(without_stages, top, problems_);
  }

  void read_stage(const Node& node, Recipe& recipe) {
    Stage stage;
    if (node.kind != Node::Kind::kMap) {
      if (node.kind != Node::Kind::kRefused)
        problems_.push_back({node.mark, node.path, "must be a stage: keys with values"});
      return;
    }
    if (!read_header(node, stage)) {
      unread_.insert(stage.name);
      recipe.stages.push_back(std::move(stage));
      return;
    }
    Node effective = empty_map(node.mark);
    effective.path = node.path;
    const std::vector<std::string> sections = names_of(kind_of(stage).sections);
    for (const Node& child : node.children) check_member(child, stage, sections);
    for (const SectionKind& section : kind_of(stage).sections)
      if (auto merged = merged_section(section, node)) effective.children.push_back(std::move(*merged));
    for (const char* key : {"name", "kind"})
      if (const Node* child = node.find(key)) effective.children.push_back(*child);
    read_section(effective, stage, problems_);
    take_from_source(effective, recipe, stage);
    shorten_warmup(effective, stage);
    trees_.push_back({stage.name, std::move(effective)});
    recipe.stages.push_back(std::move(stage));
  }

  // A student that is cut takes every choice that the recipe does not name from its source.
  static void take_from_source(const Node& tree, const Recipe& before, Stage& stage) {
    const auto* model = stage.find<ModelOptions>();
    const Node* named = tree.find("model");
    if (model == nullptr || named == nullptr || !model->init || !model->from.empty()) return;
    auto source = init_spec(before, stage);
    if (!source) return;
    if (source->kv_heads == source->heads) source->kv_heads = 0;  // as many as the student's own
    stage.get<ModelOptions>().choices = *source;
    Problems known;  // reported already
    read_section(*named, stage.get<ModelOptions>(), known);
  }

  // A warm-up that nobody wrote is no longer than the training.
  static void shorten_warmup(const Node& tree, Stage& stage) {
    if (stage.find<train::TrainOptions>() == nullptr || tree.at("train.schedule.warmup") != nullptr) return;
    auto& train = stage.get<train::TrainOptions>();
    if (train.epochs == 0.0) train.schedule.warmup = std::min(train.schedule.warmup, train.steps);
  }

  // Name and kind; false when the rest cannot be judged.
  bool read_header(const Node& node, Stage& stage) {
    struct Header {
      std::string name = "train", kind = "train";
      void describe(Section& s) { describe_header(s, name, kind); }
    } names;
    Node header = empty_map(node.mark);
    for (const char* key : {"name", "kind"})
      if (const Node* child = node.find(key)) header.children.push_back(*child);
    const size_t before = problems_.size();
    if (node.find("name") == nullptr && tree_.find("stages") != nullptr)
      problems_.push_back({node.mark, node.path, "a stage needs a name"});
    read_section(header, names, problems_);
    stage = Stage(names.kind, names.name);
    return problems_.size() == before;
  }

  void check_member(const Node& child, const Stage& stage, const std::vector<std::string>& sections) {
    if (child.name == "name" || child.name == "kind") return;
    if (std::find(sections.begin(), sections.end(), child.name) != sections.end()) return;
    const std::vector<std::string> all = names_of(all_sections());
    const bool elsewhere = std::find(all.begin(), all.end(), child.name) != all.end();
    std::vector<std::string> known = sections;
    known.insert(known.begin(), {"name", "kind"});
    std::string hint = did_you_mean(child.name, known);
    if (hint.empty())
      hint = fmt::format("; a stage of kind {} takes {}", stage.kind(), fmt::join(sections, ", "));
    problems_.push_back({child.name_mark, child.path, (elsewhere ? "of no use here" : "unknown key") + hint});
  }

  std::optional<Node> merged_section(const SectionKind& kind, const Node& stage) {
    const Node* below = tree_.find(kind.name);
    const Node* above = stage.find(kind.name);
    if (below == nullptr && above == nullptr) return std::nullopt;
    const bool replaces = above != nullptr && has_instead(kind, *above);
    Node merged = above == nullptr ? *below : below == nullptr || replaces ? *above : overlay(*below, *above);
    check_instead(kind, merged, problems_);
    return merged;
  }

  // The node of a key, or nullptr.
  const Node* locate(const std::string& stage, const std::string& key) const {
    for (const auto& [name, tree] : trees_)
      if (name == stage)
        if (const Node* node = tree.at(key)) return node;
    return tree_.at(key);
  }

  Problem placed(const Finding& finding) const {
    const std::string& key = finding.keys.front();
    if (const Node* node = locate(finding.stage, key)) {
      return {node->mark, node->path, finding.text};
    }
    const bool listed = tree_.find("stages") != nullptr && !finding.stage.empty();
    const std::string full = listed ? fmt::format("stages.{}.{}", finding.stage, key) : key;
    Mark mark = tree_.mark;
    for (size_t dot = full.size(); dot != std::string::npos;
         dot = dot == 0 ? std::string::npos : full.rfind('.', dot - 1))
      if (const Node* node = tree_.at(full.substr(0, dot))) {
        mark = node->name.empty() ? node->mark : node->name_mark;
        break;
      }
    return {mark, full, finding.text};
  }

  Node tree_;
  Problems& problems_;
  std::vector<std::pair<std::string, Node>> trees_;  // a stage's effective tree
  std::set<std::string> unread_;                     // stages that could not be judged
};

bool is_of(const Finding& finding, const std::vector<std::string>& keys) {
  return std::find(keys.begin(), keys.end(), finding.keys.front()) != keys.end();
}

// What is not on the machine that plans, or not yet: texts, documents of tasks, the device, the place of the run.
void leave_to_runs(std::vector<Finding>& findings, std::vector<Finding>& missing) {
  std::erase_if(findings, [](const Finding& finding) {
    return is_of(finding, {"run.device", "run.text", "prepare.text", "watch.data"});
  });
  std::erase_if(missing, [](const Finding& finding) {
    return is_of(finding,
                 {"run.dir", "run.text", "prepare.text", "evaluate.text", "evaluate.data", "watch.data"});
  });
}

}  // namespace

Recipe read_recipe(const std::string& file, const std::vector<std::string>& sets, int64_t ranks,
                   ReadFor purpose) {
  const Source source = open_source(file);
  return parse_recipe(source.text, source.name, sets, ranks, purpose);
}

Recipe parse_recipe(const std::string& text, const std::string& source, const std::vector<std::string>& sets,
                    int64_t ranks, ReadFor purpose) {
  Problems problems;
  MergedTree merged = merged_tree({source, text}, sets, problems);
  Reader reader(std::move(merged.tree), problems);
  Recipe recipe = reader.read();
  const std::string stem = Path(source.substr(source.find(':') + 1)).stem().string();
  if (recipe.run.name.empty()) recipe.run.name = stem;
  if (recipe.run.dir.empty()) recipe.run.dir = "runs/" + recipe.run.name;
  std::vector<Finding> findings = validate(recipe, ranks), missing = missing_files(recipe);
  if (purpose == ReadFor::kPlan) leave_to_runs(findings, missing);
  reader.add(findings);
  reader.add(missing);
  for (Problem& problem : problems)
    if (!merged.base.empty() && problem.mark.source == merged.base)
      problem.text += fmt::format(" ({} is based on it)", source);
  raise_if_any(std::move(problems));
  return recipe;
}

}  // namespace retort::recipes
