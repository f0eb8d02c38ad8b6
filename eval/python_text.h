// What Python makes of texts, where lm-evaluation-harness counts or cuts them: its white space, its characters,
// and lists as they are printed. Bytes that are no UTF-8 count as a character each. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace retort::eval {

std::string_view without_trailing_space(std::string_view text);  // rstrip()
std::string_view without_outer_space(std::string_view text);     // strip()
int64_t count_characters(std::string_view text);                 // len()
int64_t count_words(std::string_view text);  // len(re.split(r"\s+", text)): empty ends count
bool is_digits(std::string_view text);       // 0 to 9 alone, at least one

// ['a', "it's", 3] as texts: what print() shows of a list or a tuple of texts and numbers. Nothing for a text that is
// no such list.
std::optional<std::vector<std::string>> read_list(std::string_view text);

}  // namespace retort::eval
