#include "data/tokenizers/bpe_spec.h"

#include <algorithm>
#include <tuple>

#include "core/error.h"
#include "data/tokenizers/unicode.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::Json;
using formats::shown;

constexpr size_t kLongestScored = 1024;  // bytes of a token that may be a merge's: its ways are all tried

bool is_utf8(std::string_view text) {
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    const Character c = decode_utf8(at, end);
    if (c.value == kMalformed) return false;
    at += c.bytes;
  }
  return true;
}

void check_id(const BpeSpec& spec, const char* what, std::optional<int32_t> id) {
  check<DataError>(!id || (*id >= 0 && static_cast<size_t>(*id) < spec.tokens.size()),
                   "{}: {} must be an id below {}, got {}", spec.name, what, spec.tokens.size(),
                   id.value_or(0));
}

// The ids of one part of a template: those of special tokens before and after the text "A".
TextFrame frame_of_template(const Json& processor, const std::string& source) {
  TextFrame frame;
  const auto single = processor.find("single");
  check<DataError>(single != processor.end() && single->is_array(),
                   "{}: TemplateProcessing must have a list \"single\"", source);
  bool after = false;
  for (const Json& piece : *single) {
    if (piece.contains("Sequence")) {
      after = true;
      continue;
    }
    check<DataError>(piece.is_object() && piece.contains("SpecialToken"),
                     "{}: a template holds SpecialToken and Sequence only", source);
    const std::string name = formats::json_text(piece.at("SpecialToken"), "id", source);
    const Json* ids = nullptr;
    if (const auto table = processor.find("special_tokens"); table != processor.end() && table->is_object())
      if (const auto token = table->find(name); token != table->end() && token->is_object())
        if (const auto list = token->find("ids"); list != token->end() && list->is_array()) ids = &*list;
    check<DataError>(ids != nullptr, "{}: special_tokens must list the ids of {}", source, shown(name));
    for (const Json& id : *ids) {
      check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX,
                       "{}: special_tokens of {} must be ids", source, shown(name));
      (after ? frame.after : frame.before).push_back(id.get<int32_t>());
    }
  }
  return frame;
}

}  // namespace

TokenIndex::TokenIndex(const std::vector<std::string>& tokens) {
  ids_.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id)
    if (!tokens[id].empty()) ids_.emplace(tokens[id], static_cast<int32_t>(id));
}

std::optional<int32_t> TokenIndex::find(std::string_view text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

void add_merge(BpeSpec& spec, const TokenIndex& index, std::string_view left, std::string_view right,
               const std::string& source) {
  const std::string joined = std::string(left) + std::string(right);
  const auto id = [&](std::string_view text) {
    const auto found = index.find(text);
    check<DataError>(found.has_value(), "{}: merge {} {} needs the token {}, which the vocabulary lacks",
                     source, shown(left), shown(right), shown(text));
    return *found;
  };
  spec.merges.push_back({id(left), id(right), id(joined)});
}

std::vector<Merge> merges_of_scores(const std::vector<std::string>& texts, const std::vector<float>& scores) {
  const TokenIndex index(texts);
  std::vector<Merge> out;
  for (size_t id = 0; id < texts.size(); ++id) {
    const std::string_view text = texts[id];
    if (text.size() > kLongestScored) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = index.find(text.substr(0, cut)), right = index.find(text.substr(cut));
      if (left && right) out.push_back({*left, *right, static_cast<int32_t>(id)});
    }
  }
  std::sort(out.begin(), out.end(), [&](const Merge& a, const Merge& b) {
    const auto order = [&](const Merge& m) {
      return std::tuple(-scores[static_cast<size_t>(m.joined)], m.joined, m.left, m.right);
    };
    return order(a) < order(b);
  });
  return out;
}

void validate(const BpeSpec& spec) {
  check<DataError>(!spec.tokens.empty() && spec.tokens.size() <= INT32_MAX,
                   "{}: a vocabulary must hold at least one token, got {}", spec.name, spec.tokens.size());
  std::unordered_map<std::string_view, size_t> seen;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.tokens[id].empty()) continue;
    check<DataError>(is_utf8(spec.tokens[id]), "{}: token {} is no UTF-8: {}", spec.name, id,
                     shown(spec.tokens[id]));
    const auto [at, fresh] = seen.emplace(spec.tokens[id], id);
    check<DataError>(fresh, "{}: ids {} and {} are the same token {}", spec.name, at->second, id,
                     shown(spec.tokens[id]));
  }
  const auto inside = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < spec.tokens.size(); };
  for (const Merge& merge : spec.merges)
    check<DataError>(inside(merge.left) && inside(merge.right) && inside(merge.joined),
                     "{}: a merge must be of ids below {}, got {} {} {}", spec.name, spec.tokens.size(),
                     merge.left, merge.right, merge.joined);
  for (const AddedToken& token : spec.added)
    check<DataError>(inside(token.id) && spec.tokens[static_cast<size_t>(token.id)] == token.text,
                     "{}: added token {} has id {}, where the vocabulary has {}", spec.name,
                     shown(token.text), token.id,
                     inside(token.id) ? shown(spec.tokens[static_cast<size_t>(token.id)]) : "no token");
  check<DataError>(spec.scores.empty() || spec.scores.size() == spec.tokens.size(),
                   "{}: scores must be one for each of {} tokens, got {}", spec.name, spec.tokens.size(),
                   spec.scores.size());
  check_id(spec, "the unknown token", spec.unknown);
  check_id(spec, "the token of a text's begin", spec.begin);
  check_id(spec, "the token of a text's end", spec.end);
  check_id(spec, "the padding token", spec.pad);
  check<DataError>(is_utf8(spec.chat_template), "{}: the chat template must be UTF-8", spec.name);
  for (const auto& [name, text] : spec.chat_templates)
    check<DataError>(is_utf8(name) && is_utf8(text), "{}: the chat template {} must be UTF-8", spec.name,
                     shown(name));
  const TextFrame frame = frame_of(spec);
  for (const auto& ids : {frame.before, frame.after})
    for (const int32_t id : ids) check_id(spec, "a token of the post_processor", id);
}

TextFrame frame_of(const BpeSpec& spec) {
  TextFrame frame;
  const std::string source = spec.name + ": post_processor";
  const auto add = [&](const Json& processor) {
    const std::string type = formats::json_text(processor, "type", source);
    if (type == "TemplateProcessing")
      frame = frame_of_template(processor, source);
    else
      check<DataError>(type == "ByteLevel",
                       "{}: type must be one of ByteLevel, TemplateProcessing, Sequence, got {}", source,
                       shown(type));
  };
  if (spec.post_processor.is_null()) return frame;
  if (formats::json_text(spec.post_processor, "type", source) != "Sequence") {
    add(spec.post_processor);
    return frame;
  }
  const auto parts = spec.post_processor.find("processors");
  check<DataError>(parts != spec.post_processor.end() && parts->is_array(),
                   "{}: key \"processors\" must be a list", source);
  for (const Json& part : *parts) add(part);
  return frame;
}

}  // namespace retort::data
