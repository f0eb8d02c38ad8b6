#include "data/regex.h"

#include "core/error.h"
#include "data/pcre2_pattern.h"

namespace retort::data {
namespace {

constexpr std::string_view kWhere = "[regex]";

}  // namespace

using pcre2::reason, pcre2::units;

struct Regex::Code {
  pcre2::Code code;
  pcre2::Limits limits;
};

Regex::Regex(std::string pattern)
    : pattern_(std::move(pattern)),
      code_(new Code{pcre2::compile(pattern_, kWhere), pcre2::limit(pcre2::kSteps, kWhere)}) {}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

std::vector<std::vector<std::string_view>> Regex::find_all(std::string_view text) const {
  const pcre2::Match match = pcre2::match_of(code_->code, kWhere);
  std::vector<std::vector<std::string_view>> out;
  for (size_t at = 0; at <= text.size();) {
    const int found =
        pcre2_match(code_->code.get(), units(text), text.size(), at, 0, match.get(), code_->limits.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    check<DataError>(found > 0, "[regex] the pattern {} fails on a text of {} bytes: {}", pattern_,
                     text.size(), reason(found));
    const size_t* ends = pcre2_get_ovector_pointer(match.get());
    auto& groups = out.emplace_back();
    for (uint32_t group = 0; group < pcre2_get_ovector_count(match.get()); ++group)
      groups.push_back(ends[2 * group] == PCRE2_UNSET
                           ? std::string_view()
                           : text.substr(ends[2 * group], ends[2 * group + 1] - ends[2 * group]));
    at = ends[1];
    if (ends[1] > ends[0]) continue;
    do ++at;  // a match of nothing: on with the next character
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  }
  return out;
}

std::string Regex::replace_all(std::string_view text, const std::string& replacement) const {
  std::string out(2 * text.size() + 256, '\0');
  while (true) {
    size_t size = out.size();
    const int done = pcre2_substitute(
        code_->code.get(), units(text), text.size(), 0,
        PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_UNSET_EMPTY | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH, nullptr,
        code_->limits.get(), units(replacement), replacement.size(),
        reinterpret_cast<PCRE2_UCHAR*>(out.data()), &size);
    if (done >= 0) {
      out.resize(size);
      return out;
    }
    check<DataError>(done == PCRE2_ERROR_NOMEMORY && size > out.size(),
                     "[regex] the pattern {}, replaced by {}, fails on a text of {} bytes: {}", pattern_,
                     replacement, text.size(), reason(done));
    out.resize(size);
  }
}

}  // namespace retort::data
