#include "data/tokenizers/token_decoder.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/nearest.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/normalizer.h"

namespace retort::data {
namespace {

using formats::Json;
using formats::json_integer;
using formats::json_text;

constexpr std::string_view kDigits = "0123456789ABCDEF";

}  // namespace

std::optional<char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const size_t high = kDigits.find(token[3]), low = kDigits.find(token[4]);
  if (high == kDigits.npos || low == kDigits.npos) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

std::string byte_token(unsigned char byte) { return fmt::format("<0x{:02X}>", byte); }

TokenDecoder::TokenDecoder(const Json& description, const std::string& source) {
  if (!description.is_null()) add(description, source + ": decoder");
}

void TokenDecoder::add(const Json& description, const std::string& source) {
  const std::string type = json_text(description, "type", source);
  if (type == "Sequence") {
    const auto parts = description.find("decoders");
    check<DataError>(parts != description.end() && parts->is_array(), "{}: key \"decoders\" must be a list",
                     source);
    for (const Json& part : *parts) add(part, source);
  } else if (type == "ByteLevel") {
    byte_level_ = true;
  } else if (type == "Replace") {
    const auto pattern = description.find("pattern");
    check<DataError>(pattern != description.end() && pattern->is_object() && pattern->contains("String"),
                     "{}: Replace must have a pattern of type String", source);
    replacements_.push_back(
        {json_text(*pattern, "String", source), json_text(description, "content", source)});
    growth_ = grown(growth_, replacements_.back().pattern, replacements_.back().content, source);
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Strip") {
    check<DataError>(fused_ && json_integer(description, "stop", source) == 0,
                     "{}: Strip must follow Fuse, and take nothing off the end", source);
    strip_ = json_text(description, "content", source);
    strip_count_ = json_integer(description, "start", source);
  } else if (type == "Metaspace") {
    replacements_.push_back({json_text(description, "replacement", source), " "});
    const bool never =
        description.contains("prepend_scheme") && description.at("prepend_scheme") == Json("never");
    if (!never && description.value("add_prefix_space", Json(true)) != Json(false))
      strip_.assign(1, ' '), strip_count_ = 1;
  } else {
    const std::vector<std::string> known = {"ByteLevel", "Metaspace", "Replace", "ByteFallback",
                                            "Fuse",      "Strip",     "Sequence"};
    fail<DataError>("{}: type must be one of {}, got \"{}\"{}", source, fmt::join(known, ", "), type,
                    did_you_mean(type, known));
  }
}

std::string TokenDecoder::bytes(std::string_view token) const {
  if (byte_level_)
    if (auto bytes = from_byte_alphabet(token)) return std::move(*bytes);
  if (byte_fallback_)
    if (const auto byte = byte_of_token(token)) return {&*byte, 1};
  std::string out(token);  // also what is not of the alphabet
  for (const Replacement& r : replacements_) out = replaced(out, r.pattern, r.content);
  return out;
}

void TokenDecoder::strip(std::string& text) const {
  for (int64_t i = 0; i < strip_count_ && !strip_.empty() && text.starts_with(strip_); ++i)
    text.erase(0, strip_.size());
}

}  // namespace retort::data
