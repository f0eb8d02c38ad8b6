#include "recipes/yaml_tree.h"

#include <fmt/ranges.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <optional>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/nearest.h"

namespace retort::recipes {
namespace {

constexpr size_t kDeepest = 32;

struct TooDeep {
  Mark mark;
};

// Builds the tree bottom-up from the parser's events.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(std::string source, Problems& problems) : source_(std::move(source)), problems_(problems) {}
  Node take() { return std::move(root_); }
  int documents() const { return documents_; }

  void OnDocumentStart(const YAML::Mark&) override { ++documents_; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    attach(made(Node::Kind::kNull, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    problems_.push_back({mark_of(mark), "", "aliases are not allowed; write the value out, or use base:"});
    attach(made(Node::Kind::kRefused, mark, "", YAML::NullAnchor));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = made(Node::Kind::kScalar, mark, tag, anchor);
    node.scalar = value;
    node.quoted = tag == "!";
    attach(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(made(Node::Kind::kList, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(made(Node::Kind::kMap, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Node node;
    std::optional<Node> key;  // a map's key that waits for its value
  };

  Mark mark_of(const YAML::Mark& mark) const { return {source_, mark.line + 1, mark.column + 1}; }

  Node made(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    Node node;
    node.kind = kind;
    node.mark = mark_of(mark);
    if (anchor != YAML::NullAnchor) problems_.push_back({node.mark, "", "anchors are not allowed"});
    if (tag.size() > 1)
      problems_.push_back({node.mark, "", fmt::format("tags are not allowed, got {}", tag)});
    return node;
  }

  void open(Node node) {
    if (open_.size() >= kDeepest) throw TooDeep{node.mark};
    open_.push_back({std::move(node), std::nullopt});
  }
  void close() {
    Node node = std::move(open_.back().node);
    open_.pop_back();
    attach(std::move(node));
  }
  void attach(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Node::Kind::kList) {
      parent.node.children.push_back(std::move(node));
    } else if (!parent.key) {
      if (node.kind != Node::Kind::kScalar && node.kind != Node::Kind::kRefused)
        problems_.push_back({node.mark, "", "a key must be a name"});
      parent.key = std::move(node);
    } else {
      add_member(parent.node, *parent.key, std::move(node));
      parent.key.reset();
    }
  }
  void add_member(Node& map, const Node& key, Node value) {
    if (key.kind != Node::Kind::kScalar) return;
    if (const Node* first = map.find(key.scalar)) {
      problems_.push_back(
          {key.mark, key.scalar, fmt::format("duplicate key; first in line {}", first->name_mark.line)});
      return;
    }
    value.name = key.scalar;
    value.name_mark = key.mark;
    map.children.push_back(std::move(value));
  }

  std::string source_;
  Problems& problems_;
  std::vector<Open> open_;
  Node root_;
  int documents_ = 0;
};

std::string item_name(const Node& item, size_t index) {
  const Node* name = item.kind == Node::Kind::kMap ? item.find("name") : nullptr;
  return name != nullptr && !name->scalar.empty() ? name->scalar : std::to_string(index);
}

void add_scalars(const Node& node, std::map<std::string, std::string>& out) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Node& child = node.children[i];
    add_scalars(child, out);
    const std::string path =
        node.kind == Node::Kind::kList ? fmt::format("{}[{}]", node.path, i) : child.path;
    if (child.kind == Node::Kind::kScalar) out[path] = child.scalar;
  }
}

void assign_paths(Node& node) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    Node& child = node.children[i];
    const std::string step = node.kind == Node::Kind::kMap ? child.name : item_name(child, i);
    child.path = node.path.empty() ? step : node.path + "." + step;
    assign_paths(child);
  }
}

// A value that was given as a whole: all of its nodes stand at one place.
void mark_all(Node& node, const Mark& mark) {
  node.mark = node.name_mark = mark;
  for (Node& child : node.children) mark_all(child, mark);
}

Node* step_into(Node& node, const std::string& step) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    Node& child = node.children[i];
    if (step == (node.kind == Node::Kind::kMap ? child.name : item_name(child, i))) return &child;
  }
  return nullptr;
}

std::vector<std::string> split(std::string_view dotted) {
  std::vector<std::string> steps;
  for (size_t begin = 0; begin <= dotted.size();) {
    const size_t end = std::min(dotted.find('.', begin), dotted.size());
    steps.emplace_back(dotted.substr(begin, end - begin));
    begin = end + 1;
  }
  return steps;
}

}  // namespace

std::string Mark::text() const { return line == 0 ? source : fmt::format("{}:{}:{}", source, line, column); }

void raise_if_any(Problems problems) {
  if (problems.empty()) return;
  std::vector<std::string> sources;  // in the order in which they were read
  for (const Problem& p : problems)
    if (std::find(sources.begin(), sources.end(), p.mark.source) == sources.end())
      sources.push_back(p.mark.source);
  const auto place = [&](const Problem& p) {
    const auto source = std::find(sources.begin(), sources.end(), p.mark.source) - sources.begin();
    return std::tuple(source, p.mark.line, p.mark.column);
  };
  std::stable_sort(problems.begin(), problems.end(),
                   [&](const Problem& a, const Problem& b) { return place(a) < place(b); });
  std::vector<std::string> lines;
  std::set<std::string> seen;  // a section that several stages share is read once for each
  for (const Problem& p : problems) {
    const std::string where = p.mark.text();
    const bool named = p.key.empty() || where.ends_with(" " + p.key);  // "--set train.steps" names it already
    std::string line =
        named ? fmt::format("{}: {}", where, p.text) : fmt::format("{}: {}: {}", where, p.key, p.text);
    if (seen.insert(line).second) lines.push_back(std::move(line));
  }
  if (lines.size() == 1) fail<ConfigError>("{}", lines[0]);
  fail<ConfigError>("{} problems\n{}", lines.size(), fmt::join(lines, "\n"));
}

const Node* Node::find(std::string_view member) const {
  for (const Node& child : children)
    if (kind == Kind::kMap && child.name == member) return &child;
  return nullptr;
}

const Node* Node::at(std::string_view dotted) const {
  const Node* node = this;
  for (const std::string& step : split(dotted)) {
    node = step_into(const_cast<Node&>(*node), step);
    if (node == nullptr) return nullptr;
  }
  return node;
}

Node parse_yaml(std::string_view text, const std::string& source, Problems& problems) {
  Node nothing;
  nothing.mark = {source, 1, 1};
  if (text.size() > kLargestYaml) {
    problems.push_back(
        {{source}, "", fmt::format("must be at most {} bytes, got {}", kLargestYaml, text.size())});
    return nothing;
  }
  TreeBuilder builder(source, problems);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (builder.documents() < 2 && parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    problems.push_back({{source, error.mark.line + 1, error.mark.column + 1}, "", "not YAML: " + error.msg});
    return nothing;
  } catch (const TooDeep& deep) {
    problems.push_back({deep.mark, "", fmt::format("nested deeper than {}", kDeepest)});
    return nothing;
  }
  if (builder.documents() == 0) return nothing;
  if (builder.documents() > 1) problems.push_back({{source}, "", "must be one YAML document, got several"});
  Node root = builder.take();
  assign_paths(root);
  return root;
}

std::map<std::string, std::string> scalars_of(const Node& root) {
  std::map<std::string, std::string> out;
  add_scalars(root, out);
  return out;
}

Node overlay(const Node& below, const Node& above) {
  if (below.kind != Node::Kind::kMap || above.kind != Node::Kind::kMap) return above;
  Node out = below;
  out.mark = above.mark;
  out.name_mark = above.name_mark;
  out.path = above.path;
  for (const Node& child : above.children) {
    const auto same = std::find_if(out.children.begin(), out.children.end(),
                                   [&](const Node& c) { return c.name == child.name; });
    if (same == out.children.end())
      out.children.push_back(child);
    else
      *same = overlay(*same, child);
  }
  return out;
}

namespace {

// Where a comment would begin in YAML, outside of quotes; npos: nowhere.
size_t comment_in(std::string_view text) {
  char quote = '\0';
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = i == 0 || std::string_view(" \t\n,[{:").find(text[i - 1]) != std::string_view::npos;
    if (quote != '\0')
      quote = text[i] == quote ? '\0' : quote;
    else if (begins && (text[i] == '"' || text[i] == '\''))
      quote = text[i];
    else if (text[i] == '#' &&
             (i == 0 || std::string_view(" \t\n").find(text[i - 1]) != std::string_view::npos))
      return i;
  }
  return std::string_view::npos;
}

// A value of the command line, in which nothing is a comment: plain text keeps its "#".
Node set_to(std::string_view text, const std::string& source, Problems& problems) {
  Node value = parse_yaml(text, source, problems);
  if (comment_in(text) == std::string_view::npos) return value;
  if (value.kind == Node::Kind::kNull || (value.kind == Node::Kind::kScalar && !value.quoted)) {
    value.kind = Node::Kind::kScalar;
    const size_t begin = text.find_first_not_of(" \t\n"), end = text.find_last_not_of(" \t\n");
    value.scalar = text.substr(begin, end + 1 - begin);
  } else {
    problems.push_back(
        {value.mark, "", "no comment may follow a value here; quote a text that holds \" #\""});
  }
  return value;
}

}  // namespace

void set_value(Node& root, const std::string& assignment, Problems& problems) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    problems.push_back({{"--set " + assignment}, "", "must be key=value"});
    return;
  }
  const std::string key = assignment.substr(0, equals);
  const Mark mark{"--set " + key};
  Problems found;
  Node value = set_to(std::string_view(assignment).substr(equals + 1), mark.source, found);
  for (const Problem& p : found) problems.push_back({mark, "", p.text});
  const std::vector<std::string> steps = split(key);
  if (root.kind == Node::Kind::kNull) root.kind = Node::Kind::kMap;
  Node* node = &root;
  for (size_t i = 0; i < steps.size(); ++i) {
    const bool last = i + 1 == steps.size();
    Node* next = step_into(*node, steps[i]);
    if (next == nullptr) {
      if (node->kind != Node::Kind::kMap) {
        std::vector<std::string> known;
        for (const Node& child : node->children)
          if (const Node* name = child.find("name")) known.push_back(name->scalar);
        problems.push_back(
            {mark, "",
             fmt::format("there is no \"{}\" in {}{}", steps[i], node->path, did_you_mean(steps[i], known))});
        return;
      }
      node->children.emplace_back();
      next = &node->children.back();
      next->kind = Node::Kind::kMap;
      next->name = steps[i];
      next->mark = next->name_mark = mark;
    } else if (!last && next->kind == Node::Kind::kNull) {
      next->kind = Node::Kind::kMap;
    }
    node = next;
  }
  value.name = node->name;
  *node = std::move(value);
  mark_all(*node, mark);
  assign_paths(root);
}

}  // namespace retort::recipes
