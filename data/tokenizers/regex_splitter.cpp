// Patterns that have no scanner, through PCRE2: Perl's syntax, which that of published tokenizers agrees with
// as far as they use it. Bytes that are no UTF-8 match nothing (PCRE2_MATCH_INVALID_UTF). A pattern that
// backtracks without end is stopped by a limit on steps, which grows with the text: a run of white space costs
// published patterns a few steps a byte.
#include <algorithm>

#include "core/error.h"
#include "data/pcre2_pattern.h"
#include "data/tokenizers/splitter.h"

namespace retort::data {
namespace {

constexpr std::string_view kWhere = "[splitter]";
constexpr uint64_t kStepsOfAByte = 16;

uint32_t steps_for(size_t bytes) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(kStepsOfAByte * bytes, pcre2::kSteps, UINT32_MAX));
}

class RegexSplitter final : public Splitter {
 public:
  RegexSplitter(const std::string& pattern, SplitBehavior behavior, bool invert)
      : pattern_(pattern), behavior_(behavior), invert_(invert), code_(pcre2::compile(pattern, kWhere)) {}

  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    const pcre2::Match match = pcre2::match_of(code_, kWhere);
    const pcre2::Limits limits = pcre2::limit(steps_for(text.size()), kWhere);
    std::vector<Stretch> stretches;
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(code_.get(), pcre2::units(text), text.size(), at, 0, match.get(), limits.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      check<DataError>(found >= 0, "[splitter] the pattern {} fails on a text of {} bytes: {}", pattern_,
                       text.size(), pcre2::reason(found));
      const size_t begin = pcre2_get_ovector_pointer(match.get())[0];
      const size_t end = pcre2_get_ovector_pointer(match.get())[1];
      at = std::max(end, at + 1);
      if (end <= begin) continue;  // a match of nothing
      if (begin > done) stretches.push_back({begin, invert_});
      stretches.push_back({end, !invert_});
      done = end;
    }
    if (done < text.size()) stretches.push_back({text.size(), invert_});
    join_stretches(stretches, behavior_, offset, ends);
  }
  std::string rule() const override {
    return fmt::format("regex {} {} {}", pattern_, static_cast<int>(behavior_), invert_);
  }

 private:
  std::string pattern_;
  SplitBehavior behavior_;
  bool invert_;
  pcre2::Code code_;
};

}  // namespace

std::unique_ptr<Splitter> make_regex_splitter(const std::string& pattern, SplitBehavior behavior,
                                              bool invert) {
  return std::make_unique<RegexSplitter>(pattern, behavior, invert);
}

}  // namespace retort::data
