// Descriptions of tasks: YAML files of a user's, and those that come with the binary (recipes/tasks/*.yaml). One that
// begins with `include: OTHER` lies over that other one, a file beside it or a shipped one. Any thread. Throws
// ConfigError with one line a problem: file:line:column: key: rule, what came.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "eval/task_spec.h"

namespace retort::recipes {

struct ShippedTask {
  std::string_view name, text;
};
const std::vector<ShippedTask>& shipped_tasks();  // in alphabetical order; cmake/embed.cmake makes them
const ShippedTask* find_shipped_task(std::string_view name);
std::vector<std::string> shipped_task_names();

bool is_task_file(const std::string& name);  // a path: it ends in .yaml or .yml

// `data`: the folder of the data files; "": the one of the description, for a shipped one the current one.
struct DescribedTask {
  eval::TaskSpec spec;
  Path folder;  // where its data files are that have no absolute path
};
DescribedTask read_task(const std::string& name, const std::string& data);

}  // namespace retort::recipes
