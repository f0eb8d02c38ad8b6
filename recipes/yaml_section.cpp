#include "recipes/yaml_section.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "core/nearest.h"

namespace retort::recipes {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// What a node holds, for "got ...".
std::string shown(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kList:
      return "a list";
    case Node::Kind::kMap:
      return "a section";
    case Node::Kind::kScalar:
      break;
    default:
      return "nothing";
  }
  const bool number = !node.quoted && !node.scalar.empty() &&
                      node.scalar.find_first_not_of("0123456789+-.eE") == std::string::npos;
  return number ? node.scalar : fmt::format("\"{}\"", node.scalar);
}

// The whole of `text` as a T, or nothing.
template <class T>
std::optional<T> parsed(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool convert(const Node& node, bool& out) {
  if (node.quoted || (node.scalar != "true" && node.scalar != "false")) return false;
  out = node.scalar == "true";
  return true;
}

bool convert(const Node& node, int64_t& out) {
  const std::string_view digits = std::string_view(node.scalar).substr(node.scalar.starts_with('-') ? 1 : 0);
  if (node.quoted || (digits.size() > 1 && digits[0] == '0')) return false;  // 010 is eight to some readers
  const auto value = parsed<int64_t>(node.scalar);
  if (value) out = *value;
  return value.has_value();
}

bool convert(const Node& node, double& out) {
  const std::string& text = node.scalar;
  // from_chars would take "inf" and "nan" as well.
  if (node.quoted || text.empty() || !(is_digit(text[0]) || text[0] == '-' || text[0] == '.')) return false;
  const auto value = parsed<double>(text);
  if (!value || !std::isfinite(*value)) return false;
  out = *value;
  return true;
}

bool convert(const Node& node, std::string& out) {
  out = node.scalar;
  return true;
}

const char* noun(const bool*) { return "true or false"; }
const char* noun(const int64_t*) { return "an integer"; }
const char* noun(const double*) { return "a number"; }
const char* noun(const std::string*) { return "text"; }

}  // namespace

YamlSection::YamlSection(const Node& root, Problems& problems) : problems_(problems) {
  if (root.kind != Node::Kind::kMap && root.kind != Node::Kind::kNull && root.kind != Node::Kind::kRefused)
    report(root, fmt::format("must be keys with values, got {}", shown(root)));
  frames_.push_back({&root, {}});
}

const Node* YamlSection::member(std::string_view name) {
  frames_.back().known.emplace_back(name);
  const Node* node = frames_.back().node->find(name);
  return node != nullptr && node->kind != Node::Kind::kRefused ? node : nullptr;
}

void YamlSection::visit(Key key, Value value, const Check& check) {
  const Node* node = member(key.name);
  if (node == nullptr) return;
  const std::string rule = check.text.empty() ? "" : " " + check.text;
  const auto wrong = [&](const Node& at, const char* what) {
    report(at, check.choices.empty() ? fmt::format("must be {}{}, got {}", what, rule, shown(at))
                                     : fmt::format("must be {}, got {}{}", check.text, shown(at),
                                                   did_you_mean(at.scalar, check.choices)));
  };
  const auto scalar = [&](auto* out) {
    const auto before = *out;
    if (node->kind != Node::Kind::kScalar || !convert(*node, *out) || (check.holds && !check.holds())) {
      wrong(*node, noun(out));
      *out = before;
    }
  };
  const auto list = [&]<class T>(std::vector<T>* out) {
    std::vector<T> values;
    const bool single = node->kind == Node::Kind::kScalar;
    if (!single && node->kind != Node::Kind::kList)
      return report(*node, fmt::format("must be a list, got {}", shown(*node)));
    for (const Node& item : single ? std::vector<Node>{*node} : node->children) {
      T one{};
      if (item.kind == Node::Kind::kRefused) continue;
      if (item.kind != Node::Kind::kScalar || !convert(item, one))
        wrong(item, noun(&one));
      else
        values.push_back(std::move(one));
    }
    *out = std::move(values);
  };
  std::visit(
      [&]<class T>(T* out) {
        if constexpr (requires { out->push_back(typename T::value_type{}); } &&
                      !std::is_same_v<T, std::string>)
          list(out);
        else
          scalar(out);
      },
      value);
}

bool YamlSection::push(const Node& node) {
  if (node.kind != Node::Kind::kMap) {
    report(node, fmt::format("must be a section, keys with values, got {}", shown(node)));
    return false;
  }
  frames_.push_back({&node, {}});
  return true;
}

bool YamlSection::enter(Key key) {
  const Node* node = member(key.name);
  return node != nullptr && node->kind != Node::Kind::kNull && push(*node);
}

bool YamlSection::enter_optional(Key key, bool& present) {
  const Node* node = member(key.name);
  if (node == nullptr || node->kind == Node::Kind::kNull) {
    present = present && node == nullptr;  // a default stays; an explicit ~ takes it away
    return false;
  }
  return present = push(*node);
}

void YamlSection::leave() {
  finish();
  frames_.pop_back();
}

void YamlSection::finish() {
  const Frame& frame = frames_.back();
  for (const Node& child : frame.node->children) {
    if (frame.node->kind != Node::Kind::kMap) break;
    if (std::find(frame.known.begin(), frame.known.end(), child.name) != frame.known.end()) continue;
    std::string hint = did_you_mean(child.name, frame.known);
    if (hint.empty()) hint = fmt::format("; known here: {}", fmt::join(frame.known, ", "));
    problems_.push_back({child.name_mark, child.path, "unknown key" + hint});
  }
}

size_t YamlSection::enter_list(Key key, size_t size) {
  const Node* node = member(key.name);
  if (node != nullptr && node->kind == Node::Kind::kNull) node = nullptr;
  if (node != nullptr && node->kind != Node::Kind::kList) {
    report(*node, fmt::format("must be a list of sections, got {}", shown(*node)));
    node = nullptr;
  }
  lists_.push_back(node);
  return node != nullptr ? node->children.size() : size;
}

bool YamlSection::enter_item(size_t index) {
  return lists_.back() != nullptr && push(lists_.back()->children[index]);
}

void YamlSection::leave_list() { lists_.pop_back(); }

}  // namespace retort::recipes
