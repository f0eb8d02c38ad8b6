// Patterns that have no scanner, through PCRE2: Perl's syntax, which that of published tokenizers agrees with
// as far as they use it. Bytes that are no UTF-8 match nothing (PCRE2_MATCH_INVALID_UTF). A pattern that
// backtracks without end is stopped by a limit on steps, which grows with the text: a run of white space costs
// published patterns a few steps a byte.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/splitter.h"

namespace retort::data {
namespace {

constexpr uint32_t kSteps = 1000000, kHeapKibibytes = 65536;  // of one match
constexpr uint64_t kStepsOfAByte = 16;

uint32_t steps_for(size_t bytes) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(kStepsOfAByte * bytes, kSteps, UINT32_MAX));
}

template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};

std::string reason(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

class RegexSplitter final : public Splitter {
 public:
  RegexSplitter(const std::string& pattern, SplitBehavior behavior, bool invert)
      : pattern_(pattern), behavior_(behavior), invert_(invert) {
    int code = 0;
    size_t at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C,
                              &code, &at, nullptr));
    check<ConfigError>(code_ != nullptr, "[splitter] the pattern {} fails at character {}: {}", pattern, at,
                       reason(code));
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
  }

  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    const std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    const std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> context(
        pcre2_match_context_create(nullptr));
    check<ConfigError>(match && context, "[splitter] no memory for the pattern {}", pattern_);
    pcre2_set_match_limit(context.get(), steps_for(text.size()));
    pcre2_set_heap_limit(context.get(), kHeapKibibytes);
    std::vector<Stretch> stretches;
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                    0, match.get(), context.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      check<DataError>(found >= 0, "[splitter] the pattern {} fails on a text of {} bytes: {}", pattern_,
                       text.size(), reason(found));
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
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code_;
};

}  // namespace

std::unique_ptr<Splitter> make_regex_splitter(const std::string& pattern, SplitBehavior behavior,
                                              bool invert) {
  return std::make_unique<RegexSplitter>(pattern, behavior, invert);
}

}  // namespace retort::data
