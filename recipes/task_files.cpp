#include "recipes/task_files.h"

#include "core/error.h"
#include "core/nearest.h"
#include "recipes/yaml_section.h"

namespace retort::recipes {
namespace {

constexpr int kDeepest = 8;  // includes within each other

struct Source {
  std::string name;  // as errors cite it
  std::string text;
};

Source open_source(const std::string& name) {
  if (const ShippedTask* shipped = find_shipped_task(name))
    return {"task:" + name, std::string(shipped->text)};
  if (is_task_file(name)) return {name, read_text(name, kLargestYaml)};
  const std::vector<std::string> known = shipped_task_names();
  fail<ConfigError>("unknown task \"{}\"{}; known: {}, and files that end in .yaml", name,
                    did_you_mean(name, known), fmt::join(known, ", "));
}

// The file over what it includes.
Node merged_tree(const Source& source, int depth, Problems& problems) {
  Node tree = parse_yaml(source.text, source.name, problems);
  const Node* include = tree.find("include");
  if (include == nullptr) return tree;
  if (include->kind != Node::Kind::kScalar || depth == kDeepest) {
    problems.push_back({include->mark, "include", "must name a description, at most 8 within each other"});
    return tree;
  }
  const std::string name = include->scalar;
  const bool beside = is_task_file(name) && Path(name).is_relative();
  const Node below = merged_tree(
      open_source(beside ? (Path(source.name).parent_path() / name).string() : name), depth + 1, problems);
  std::erase_if(tree.children, [](const Node& child) { return child.name == "include"; });
  return overlay(below, tree);
}

}  // namespace

const ShippedTask* find_shipped_task(std::string_view name) {
  for (const ShippedTask& task : shipped_tasks())
    if (task.name == name) return &task;
  return nullptr;
}

std::vector<std::string> shipped_task_names() {
  std::vector<std::string> names;
  for (const ShippedTask& task : shipped_tasks()) names.emplace_back(task.name);
  return names;
}

bool is_task_file(const std::string& name) { return name.ends_with(".yaml") || name.ends_with(".yml"); }

DescribedTask read_task(const std::string& name, const std::string& data) {
  Problems problems;
  DescribedTask out;
  read_section(merged_tree(open_source(name), 0, problems), out.spec, problems);
  raise_if_any(std::move(problems));
  out.spec.validate();
  out.folder = !data.empty() ? Path(data) : is_task_file(name) ? Path(name).parent_path() : Path();
  return out;
}

}  // namespace retort::recipes
