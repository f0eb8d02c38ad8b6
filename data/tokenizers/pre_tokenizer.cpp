#include "data/tokenizers/pre_tokenizer.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/nearest.h"
#include "data/tokenizers/normalizer.h"

namespace retort::data {
namespace {

using formats::Json;
using formats::json_text;

bool flag(const Json& object, const char* key, bool absent, const std::string& source) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return absent;
  check<DataError>(found->is_boolean(), "{}: key \"{}\" must be true or false, got {}", source, key,
                   found->type_name());
  return found->get<bool>();
}

SplitBehavior behavior_of(const std::string& name, const std::string& source) {
  static const std::vector<std::string> names = {"Isolated", "MergedWithPrevious", "MergedWithNext",
                                                 "Contiguous"};
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<SplitBehavior>(i);
  fail<DataError>("{}: behavior must be one of {}, got \"{}\"{}", source, fmt::join(names, ", "), name,
                  did_you_mean(name, names));
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& description, const std::string& source) {
  if (!description.is_null()) add(description, source + ": pre_tokenizer");
}

void PreTokenizer::add(const Json& description, const std::string& source) {
  const std::string type = json_text(description, "type", source);
  if (type == "Sequence") {
    const auto parts = description.find("pretokenizers");
    check<DataError>(parts != description.end() && parts->is_array(),
                     "{}: key \"pretokenizers\" must be a list", source);
    for (const Json& part : *parts) add(part, source);
  } else if (type == "ByteLevel") {
    add_byte_level(description, source);
  } else if (type == "Split") {
    add_split(description, source);
  } else if (type == "Digits") {
    splitters_.push_back(make_digit_splitter(flag(description, "individual_digits", false, source)));
  } else if (type == "Metaspace") {
    add_metaspace(description, source);
  } else {
    const std::vector<std::string> known = {"ByteLevel", "Split", "Digits", "Metaspace", "Sequence"};
    fail<DataError>("{}: type must be one of {}, got \"{}\"{}", source, fmt::join(known, ", "), type,
                    did_you_mean(type, known));
  }
}

void PreTokenizer::first_only(const std::string& type, const std::string& source) const {
  check<DataError>(splitters_.empty() && !adds(), "{}: {} that adds to the text must come first", source,
                   type);
}

void PreTokenizer::add_byte_level(const Json& description, const std::string& source) {
  check<DataError>(!byte_level_, "{}: ByteLevel must come once", source);
  if (flag(description, "add_prefix_space", true, source)) {
    first_only("a ByteLevel", source);
    prefix_ = Prefix::kAlways;
  }
  byte_level_ = true;
  if (flag(description, "use_regex", true, source)) splitters_.push_back(make_gpt2_splitter());
}

void PreTokenizer::add_split(const Json& description, const std::string& source) {
  check<DataError>(!byte_level_, "{}: Split must come before ByteLevel", source);
  const SplitBehavior behavior = behavior_of(json_text(description, "behavior", source), source);
  const bool invert = flag(description, "invert", false, source);
  const auto pattern = description.find("pattern");
  check<DataError>(pattern != description.end() && pattern->is_object() &&
                       (pattern->contains("String") || pattern->contains("Regex")),
                   "{}: Split must have a pattern of type String or Regex", source);
  try {
    if (pattern->contains("Regex"))
      splitters_.push_back(make_pattern_splitter(json_text(*pattern, "Regex", source), behavior, invert));
    else
      splitters_.push_back(make_literal_splitter(json_text(*pattern, "String", source), behavior, invert));
  } catch (const ConfigError& error) {  // of the pattern, which is the file's
    fail<DataError>("{}: {}", source, error.what());
  }
}

void PreTokenizer::add_metaspace(const Json& description, const std::string& source) {
  first_only("a Metaspace", source);
  space_ = json_text(description, "replacement", source);
  grown(1.0, " ", space_, source);
  const std::string scheme = description.contains("prepend_scheme")
                                 ? json_text(description, "prepend_scheme", source)
                                 : (flag(description, "add_prefix_space", true, source) ? "always" : "never");
  check<DataError>(scheme == "always" || scheme == "first" || scheme == "never",
                   "{}: prepend_scheme must be always, first or never, got \"{}\"", source, scheme);
  metaspace_ = true;
  prefix_ = scheme == "always" ? Prefix::kAlways : scheme == "first" ? Prefix::kFirst : Prefix::kNever;
  if (flag(description, "split", true, source))
    splitters_.push_back(make_literal_splitter(space_, SplitBehavior::kMergedWithNext, false));
}

std::string PreTokenizer::prepare(std::string_view text, Before before) const {
  std::string out = metaspace_ ? replaced(text, " ", space_) : std::string(text);
  const bool wanted = (prefix_ == Prefix::kAlways && before != Before::kText) ||
                      (prefix_ == Prefix::kFirst && before == Before::kNothing);
  if (wanted && !out.empty() && !out.starts_with(space_)) out.insert(0, space_);
  return out;
}

void PreTokenizer::split(std::string_view text, std::vector<size_t>& ends) const {
  if (splitters_.empty()) {
    ends.push_back(text.size());
    return;
  }
  splitters_[0]->split(text, 0, ends);
  for (size_t i = 1; i < splitters_.size(); ++i) {
    std::vector<size_t> finer;
    size_t begin = 0;
    for (const size_t end : ends) {
      splitters_[i]->split(text.substr(begin, end - begin), begin, finer);
      begin = end;
    }
    ends = std::move(finer);
  }
}

std::string PreTokenizer::rule() const {
  std::string out = fmt::format("{} {} {} {};", byte_level_, metaspace_, static_cast<int>(prefix_), space_);
  for (const auto& splitter : splitters_) out += splitter->rule() + ";";
  return out;
}

}  // namespace retort::data
