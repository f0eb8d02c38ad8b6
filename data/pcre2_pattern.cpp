#include "data/pcre2_pattern.h"

#include "core/error.h"

namespace retort::data::pcre2 {
namespace {

constexpr uint32_t kHeapKibibytes = 65536;  // of one match

}  // namespace

Code compile(const std::string& pattern, std::string_view where) {
  int error = 0;
  size_t at = 0;
  Code code(pcre2_compile(units(pattern), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                          &at, nullptr));
  check<ConfigError>(code != nullptr, "{} the pattern {} fails at character {}: {}", where, pattern, at,
                     reason(error));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
  return code;
}

Limits limit(uint32_t steps, std::string_view where) {
  Limits limits(pcre2_match_context_create(nullptr));
  check<ConfigError>(limits != nullptr, "{} no memory for a match", where);
  pcre2_set_match_limit(limits.get(), steps);
  pcre2_set_heap_limit(limits.get(), kHeapKibibytes);
  return limits;
}

Match match_of(const Code& code, std::string_view where) {
  Match match(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  check<ConfigError>(match != nullptr, "{} no memory for a match", where);
  return match;
}

std::string reason(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace retort::data::pcre2
