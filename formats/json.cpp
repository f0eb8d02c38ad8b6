#include "formats/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <unordered_set>
#include <vector>

#include "core/error.h"
#include "core/nearest.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

constexpr size_t kDeepest = 64;

// Feeds the parser and shows how far it has read, which its own callbacks do not say.
struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** read;  // one past the last character taken

  reference operator*() const { return *at; }
  Cursor& operator++() {
    *read = ++at;
    return *this;
  }
  Cursor operator++(int) {
    const Cursor before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Cursor& other) const { return at == other.at; }
  bool operator!=(const Cursor& other) const { return at != other.at; }
};

// Builds the value, keys appended in order: the library's own builder looks through all earlier keys of an
// object for each new one (quadratic in a vocabulary) and drops a duplicate silently.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, std::string_view source)
      : text_(text), source_(source), read_(text.data()) {}

  Json build() {
    Json::sax_parse(Cursor{text_.data(), &read_}, Cursor{text_.data() + text_.size(), &read_}, this);
    return std::move(root_);
  }

  bool null() override { return place(nullptr); }
  bool boolean(bool value) override { return place(value); }
  bool number_integer(number_integer_t value) override { return place(value); }
  bool number_unsigned(number_unsigned_t value) override { return place(value); }
  bool number_float(number_float_t value, const string_t&) override { return place(value); }
  bool string(string_t& value) override { return place(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) refuse("duplicate key " + shown(name));
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t, const std::string& last, const nlohmann::detail::exception& e) override {
    const std::string_view what =
        e.what();  // "[json...] parse error at line 1, column 2: RULE; last read: ..."
    const size_t begin = what.find(": "), end = what.find("; last read");
    const std::string_view rule = begin == what.npos ? what : what.substr(begin + 2, end - begin - 2);
    refuse(fmt::format("{}, near {}", rule.substr(0, 200), shown(last)));
  }

 private:
  struct Level {
    Json* value;
    std::unordered_set<std::string> keys;
  };

  Json& put(Json&& value) {
    if (open_.empty()) return root_ = std::move(value);
    Json& parent = *open_.back().value;
    if (parent.is_array()) return parent.get_ref<Json::array_t&>().emplace_back(std::move(value));
    return parent.get_ref<Json::object_t&>().emplace_back(std::move(key_), std::move(value)).second;
  }
  bool place(Json&& value) {
    put(std::move(value));
    return true;
  }
  bool open(Json&& value) {
    if (open_.size() == kDeepest) refuse(fmt::format("nested deeper than {}", kDeepest));
    open_.push_back({&put(std::move(value)), {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  [[noreturn]] void refuse(const std::string& why) const {
    const std::string_view before = text_.substr(0, static_cast<size_t>(read_ - text_.data()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n') - (before.ends_with('\n') ? 1 : 0);
    const size_t last_break = before.empty() ? before.npos : before.rfind('\n', before.size() - 2);
    const size_t start = before.size() < 2 || last_break == before.npos ? 0 : last_break + 1;
    fail<DataError>("{}:{}:{}: {}", source_, line, std::max<size_t>(1, before.size() - start), why);
  }

  std::string_view text_, source_;
  const char* read_;
  Json root_;
  std::vector<Level> open_;
  std::string key_;
};

const Json& member(const Json& object, std::string_view key, std::string_view source) {
  check<DataError>(object.is_object(), "{}: must be an object with key \"{}\", got {}", source, key,
                   object.type_name());
  if (const auto found = object.find(key); found != object.end()) return *found;
  std::vector<std::string> known;
  for (const auto& item : object.items()) known.push_back(item.key());
  fail<DataError>("{}: key \"{}\" is missing{}", source, key, did_you_mean(key, known));
}

}  // namespace

Json parse_json(std::string_view text, std::string_view source) { return Builder(text, source).build(); }

Json read_json(const Path& path, uint64_t limit) { return parse_json(read_text(path, limit), path.string()); }

int64_t json_integer(const Json& object, std::string_view key, std::string_view source) {
  const Json& value = member(object, key, source);
  check<DataError>(
      value.is_number_integer() && (!value.is_number_unsigned() ||
                                    value.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()}),
      "{}: key \"{}\" must be an integer of 64 bits, got {} {}", source, key, value.type_name(),
      shown(value.is_structured() ? "" : value.dump(-1, ' ', true)));
  return value.get<int64_t>();
}

double json_real(const Json& object, std::string_view key, std::string_view source) {
  const Json& value = member(object, key, source);
  check<DataError>(value.is_number(), "{}: key \"{}\" must be a number, got {}", source, key,
                   value.type_name());
  return value.get<double>();
}

std::vector<double> json_reals(const Json& object, std::string_view key, std::string_view source) {
  const Json& value = member(object, key, source);
  const bool numbers = value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& element) {
                         return element.is_number();
                       });
  check<DataError>(numbers, "{}: key \"{}\" must be a list of numbers", source, key);
  return value.get<std::vector<double>>();
}

std::string json_text(const Json& object, std::string_view key, std::string_view source) {
  const Json& value = member(object, key, source);
  check<DataError>(value.is_string(), "{}: key \"{}\" must be a string, got {}", source, key,
                   value.type_name());
  return value.get<std::string>();
}

}  // namespace retort::formats
