// A YAML text as a plain tree in which every node knows where it was written. What makes YAML treacherous in
// a recipe is refused here: aliases and anchors, tags, duplicate keys, keys that are no names, more than one
// document, nesting beyond 32, more than 1 MiB. Nothing is converted: `010` and `no` stay text until a typed
// reader (yaml_section.h) judges them. Problems are collected, never thrown, so that one run shows all.
// The only home of yaml-cpp. Values; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace retort::recipes {

struct Mark {
  std::string source;        // a file's name, or "--set train.steps"
  int line = 0, column = 0;  // from 1; 0: the source as a whole
  std::string text() const;  // "recipes/a.yaml:6:9"
};

struct Problem {
  Mark mark;
  std::string key;  // dotted; may be empty
  std::string text;
};
using Problems = std::vector<Problem>;

// Throws a ConfigError with one line a problem, in the order of sources, lines and columns, unless there is
// none.
void raise_if_any(Problems problems);

struct Node {
  enum class Kind {
    kNull,
    kScalar,
    kList,
    kMap,
    kRefused
  };  // kRefused: reported already, judge it no further
  Kind kind = Kind::kNull;
  Mark mark;         // of the value
  std::string name;  // its key, as a member of a map
  Mark name_mark;
  std::string path;  // dotted, from the top of its source; a list's maps go by their `name`
  std::string scalar;
  bool quoted = false;
  std::vector<Node> children;  // of a list or a map, in order; names are unique

  const Node* find(std::string_view member) const;  // of a map; nullptr when absent
  const Node* at(std::string_view dotted) const;    // through maps and named list items; nullptr when absent
};

inline constexpr size_t kLargestYaml = size_t{1} << 20;  // bytes

Node parse_yaml(std::string_view text, const std::string& source, Problems& problems);

// Every scalar by its path; those of a list as KEY[0], KEY[1].
std::map<std::string, std::string> scalars_of(const Node& root);

// `above` over `below`: maps merge member by member, anything else replaces; every node keeps its own marks.
Node overlay(const Node& below, const Node& above);

// One `--set a.b=value` on the tree: the value is YAML without comments ("a # b" is a text); sections on the way are made, list items are found by
// their `name`.
void set_value(Node& root, const std::string& assignment, Problems& problems);

}  // namespace retort::recipes
