// What both users of PCRE2 need (data/regex.h, data/tokenizers/regex_splitter.cpp): a compiled pattern whose characters
// are Unicode's and which bytes that are no UTF-8 do not match, and limits on a match, so that a pattern that backtracks
// without end is stopped. Any thread; throws ConfigError, whose message begins with `where`.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace retort::data::pcre2 {

template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using Limits = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using Match = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

inline constexpr uint32_t kSteps = 1000000;  // of one match

Code compile(const std::string& pattern, std::string_view where);
Limits limit(uint32_t steps, std::string_view where);
Match match_of(const Code& code, std::string_view where);

std::string reason(int code);  // PCRE2's text for a negative result
inline PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace retort::data::pcre2
