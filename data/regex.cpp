#include "data/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "core/error.h"

namespace retort::data {
namespace {

constexpr uint32_t kSteps = 1000000, kHeapKibibytes = 65536;  // of one match

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

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code;
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> context;
};

Regex::Regex(std::string pattern) : pattern_(std::move(pattern)) {
  int error = 0;
  size_t at = 0;
  auto made = std::make_unique<Code>();
  made->code.reset(pcre2_compile(units(pattern_), pattern_.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C,
                                 &error, &at, nullptr));
  check<ConfigError>(made->code != nullptr, "[regex] the pattern {} fails at character {}: {}", pattern_, at,
                     reason(error));
  pcre2_jit_compile(made->code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
  made->context.reset(pcre2_match_context_create(nullptr));
  check<ConfigError>(made->context != nullptr, "[regex] no memory for the pattern {}", pattern_);
  pcre2_set_match_limit(made->context.get(), kSteps);
  pcre2_set_heap_limit(made->context.get(), kHeapKibibytes);
  code_ = std::move(made);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

std::vector<std::vector<std::string_view>> Regex::find_all(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> match(
      pcre2_match_data_create_from_pattern(code_->code.get(), nullptr));
  std::vector<std::vector<std::string_view>> out;
  for (size_t at = 0; at <= text.size();) {
    const int found =
        pcre2_match(code_->code.get(), units(text), text.size(), at, 0, match.get(), code_->context.get());
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
        code_->context.get(), units(replacement), replacement.size(),
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
