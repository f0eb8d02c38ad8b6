#include "data/tokenizers/normalizer.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "data/tokenizers/unicode.h"

namespace retort::data {

using formats::Json;
using formats::json_text;

std::string replaced(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  for (size_t at = 0; !pattern.empty();) {
    const size_t found = text.find(pattern, at);
    if (found == text.npos) return out.append(text.substr(at));
    out.append(text.substr(at, found - at)).append(content);
    at = found + pattern.size();
  }
  return std::string(text);
}

double grown(double before, std::string_view pattern, std::string_view content, const std::string& source) {
  if (pattern.size() >= content.size() || pattern.empty())
    return before;  // an empty pattern is found nowhere
  const double after = before * static_cast<double>(content.size()) / static_cast<double>(pattern.size());
  check<DataError>(after <= 64.0, "{}: may make a text at most 64 times longer, got {:g}", source, after);
  return after;
}

Normalizer::Normalizer(const Json& description, const std::string& source) {
  if (!description.is_null()) add(description, source + ": normalizer");
}

void Normalizer::add(const Json& description, const std::string& source) {
  const std::string type = json_text(description, "type", source);
  if (type == "Sequence") {
    const auto parts = description.find("normalizers");
    check<DataError>(parts != description.end() && parts->is_array(),
                     "{}: key \"normalizers\" must be a list", source);
    for (const Json& part : *parts) add(part, source);
  } else if (type == "NFC") {
    steps_.push_back({Kind::kNfc, "", ""});
  } else if (type == "Prepend") {
    steps_.push_back({Kind::kPrepend, "", json_text(description, "prepend", source)});
  } else if (type == "Replace") {
    const auto pattern = description.find("pattern");
    check<DataError>(pattern != description.end() && pattern->is_object() && pattern->contains("String"),
                     "{}: Replace must have a pattern of type String", source);
    steps_.push_back(
        {Kind::kReplace, json_text(*pattern, "String", source), json_text(description, "content", source)});
  } else {
    const std::vector<std::string> known = {"NFC", "Prepend", "Replace", "Sequence"};
    fail<DataError>("{}: type must be one of {}, got \"{}\"{}", source, fmt::join(known, ", "), type,
                    did_you_mean(type, known));
  }
  if (type == "Replace") growth_ = grown(growth_, steps_.back().pattern, steps_.back().content, source);
  if (type == "Prepend") growth_ = grown(growth_, " ", steps_.back().content, source);  // to each stretch
}

std::string Normalizer::apply(std::string_view text, bool goes_on) const {
  std::string out(text);
  for (const Step& step : steps_) {
    if (step.kind == Kind::kNfc)
      out = nfc(out);
    else if (step.kind == Kind::kReplace)
      out = replaced(out, step.pattern, step.content);
    else if (!out.empty() && !goes_on)
      out.insert(0, step.content);
  }
  return out;
}

bool Normalizer::composes() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::kNfc; });
}

std::string Normalizer::rule() const {
  std::string out;
  for (const Step& step : steps_)
    out += fmt::format("{} {} {};", static_cast<int>(step.kind), step.pattern, step.content);
  return out;
}

}  // namespace retort::data
