#include "formats/json_section.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/nearest.h"

namespace retort::formats {
namespace {

// A value of the member's type, or nothing.
std::optional<bool> as(const Json& json, const bool*) {
  return json.is_boolean() ? std::optional(json.get<bool>()) : std::nullopt;
}
std::optional<int64_t> as(const Json& json, const int64_t*) {
  const bool large = json.is_number_unsigned() &&
                     json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return json.is_number_integer() && !large ? std::optional(json.get<int64_t>()) : std::nullopt;
}
std::optional<double> as(const Json& json, const double*) {
  const bool finite = json.is_number() && std::isfinite(json.get<double>());
  return finite ? std::optional(json.get<double>()) : std::nullopt;
}
std::optional<std::string> as(const Json& json, const std::string*) {
  return json.is_string() ? std::optional(json.get<std::string>()) : std::nullopt;
}
template <class T>
std::optional<std::vector<T>> as(const Json& json, const std::vector<T>*) {
  if (!json.is_array()) return std::nullopt;
  std::vector<T> out;
  for (const Json& element : json) {
    auto one = as(element, static_cast<const T*>(nullptr));
    if (!one) return std::nullopt;
    out.push_back(std::move(*one));
  }
  return out;
}

const char* noun(const bool*) { return "true or false"; }
const char* noun(const int64_t*) { return "an integer of 64 bits"; }
const char* noun(const double*) { return "a number"; }
const char* noun(const std::string*) { return "text"; }
template <class T>
const char* noun(const std::vector<T>*) {
  return "a list of one type";
}

}  // namespace

void JsonWriter::visit(Key key, Value value, const Check&) {
  std::visit([&](const auto* v) { open_.back().value[std::string(key.name)] = *v; }, value);
}

bool JsonWriter::enter(Key key) {
  open_.push_back({std::string(key.name)});
  return true;
}

bool JsonWriter::enter_optional(Key key, bool& present) { return present && enter(key); }

void JsonWriter::leave() {
  Level done = std::move(open_.back());
  open_.pop_back();
  if (open_.back().value.is_array())
    open_.back().value.push_back(std::move(done.value));
  else
    open_.back().value[done.name] = std::move(done.value);
}

size_t JsonWriter::enter_list(Key key, size_t size) {
  open_.push_back({std::string(key.name), Json::array()});
  return size;
}

bool JsonWriter::enter_item(size_t) {
  open_.push_back({""});
  return true;
}

void JsonWriter::leave_list() { leave(); }

JsonReader::JsonReader(const Json& root) { push(root, ""); }

std::string JsonReader::path_of(std::string_view name) const {
  const std::string& above = open_.back().path;
  return above.empty() ? std::string(name) : fmt::format("{}.{}", above, name);
}

void JsonReader::report(const std::string& path, std::string_view rule, const Json& got) {
  if (!problem_.empty()) return;
  problem_ = fmt::format("{}{}{}, got {}", path, path.empty() ? "" : " ", rule,
                         got.is_structured() ? got.type_name() : got.dump(-1, ' ', true));
}

const Json* JsonReader::member(std::string_view name) {
  open_.back().known.emplace_back(name);
  const Json& value = *open_.back().value;
  if (!value.is_object()) return nullptr;
  const auto found = value.find(name);
  return found == value.end() ? nullptr : &*found;
}

bool JsonReader::push(const Json& value, std::string path) {
  if (!value.is_object()) report(path, "must be an object", value);
  open_.push_back({&value, std::move(path), {}});
  return value.is_object();
}

void JsonReader::visit(Key key, Value value, const Check& check) {
  const Json* json = member(key.name);
  if (json == nullptr) return;
  const auto read = [&](auto* out) {
    auto found = as(*json, out);
    if (!found) return report(path_of(key.name), fmt::format("must be {}", noun(out)), *json);
    std::swap(*out, *found);
    if (!check.holds || check.holds()) return;
    std::swap(*out, *found);  // the default stays
    report(path_of(key.name), "must be " + check.text, *json);
  };
  std::visit(read, value);
}

bool JsonReader::enter(Key key) {
  const Json* json = member(key.name);
  if (json == nullptr) return false;
  if (push(*json, path_of(key.name))) return true;
  open_.pop_back();
  return false;
}

bool JsonReader::enter_optional(Key key, bool& present) {
  const Json* json = member(key.name);
  if (json == nullptr) return false;  // a default stays
  present = false;
  if (json->is_null()) return false;
  open_.back().known.pop_back();  // enter() notes it
  return present = enter(key);
}

void JsonReader::leave() {
  finish();
  open_.pop_back();
}

void JsonReader::finish() {
  const Level& level = open_.back();
  if (!level.value->is_object() || !problem_.empty()) return;
  for (const auto& item : level.value->items()) {
    const std::string& name = item.key();
    if (std::find(level.known.begin(), level.known.end(), name) != level.known.end()) continue;
    problem_ = fmt::format("unknown key {}{}", path_of(name), did_you_mean(name, level.known));
    return;
  }
}

size_t JsonReader::enter_list(Key key, size_t size) {
  const Json* json = member(key.name);
  const std::string path = path_of(key.name);
  if (json != nullptr && !json->is_array()) {
    report(path, "must be a list", *json);
    json = nullptr;
  }
  lists_.push_back({json, path, {}});
  return json != nullptr ? json->size() : size;
}

bool JsonReader::enter_item(size_t index) {
  const Level& list = lists_.back();
  if (list.value == nullptr) return false;
  if (push((*list.value)[index], fmt::format("{}[{}]", list.path, index))) return true;
  open_.pop_back();
  return false;
}

void JsonReader::leave_list() { lists_.pop_back(); }

}  // namespace retort::formats
