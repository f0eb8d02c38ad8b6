// Regular expressions that a user's file holds: PCRE2's, which agree with Python's as far as task descriptions
// use them (character classes, groups, lazy repeats, look-around, inline flags). Characters are Unicode's; bytes
// that are no UTF-8 match nothing. A pattern that backtracks without end is stopped by a limit on steps. Immutable;
// any thread. Throws ConfigError for a pattern, DataError for a text that it fails on.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace retort::data {

class Regex {
 public:
  explicit Regex(std::string pattern);
  ~Regex();
  Regex(Regex&&) noexcept;

  // Of each match, from left to right, the whole and its groups; "" for a group that took no part. Parts of `text`.
  std::vector<std::vector<std::string_view>> find_all(std::string_view text) const;
  // Every match replaced; $1 is its first group, $$ a dollar.
  std::string replace_all(std::string_view text, const std::string& replacement) const;

 private:
  struct Code;
  std::string pattern_;
  std::unique_ptr<const Code> code_;
};

}  // namespace retort::data
