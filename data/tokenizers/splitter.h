// Cuts text into the pieces within which tokens are merged (pre-tokenization). Nothing is lost: the pieces
// are the text. The patterns of published vocabularies are scanners written by hand, one pass, linear time:
//   gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   cl100k  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,D}| ?[^\s\p{L}\p{N}]+[\r\n]*|
//           \s*[\r\n]+|\s+(?!\S)|\s+          D = 3 (GPT-4, Llama 3) or 1 (Qwen 2 and 3)
// Any other pattern runs on PCRE2 (data/regex_splitter.cpp).
// Splitters are immutable and shared between threads. Throw ConfigError for a pattern that does not compile,
// DataError for text on which a pattern takes too long.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace retort::data {

class Splitter {
 public:
  virtual ~Splitter() = default;
  // Appends where each piece of `text` ends, counted from `offset`, which is where `text` itself begins.
  virtual void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const = 0;
  virtual std::string rule() const = 0;  // one line that names it in fingerprints: persistent
};

// What becomes of a match, as Hugging Face's tokenizers name it. ("Removed" would lose text.)
enum class SplitBehavior { kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// A text as stretches that match and stretches that do not.
struct Stretch {
  size_t end;
  bool match;
};
// Joins stretches as the behavior says and appends the ends of what comes out.
void join_stretches(const std::vector<Stretch>& stretches, SplitBehavior behavior, size_t offset,
                    std::vector<size_t>& ends);

std::unique_ptr<Splitter> make_gpt2_splitter();
std::unique_ptr<Splitter> make_cl100k_splitter(int digits);
std::unique_ptr<Splitter> make_digit_splitter(bool individual);  // \p{N} apart, each one or in runs
std::unique_ptr<Splitter> make_literal_splitter(std::string literal, SplitBehavior behavior, bool invert);
// Before each mark that does not follow a mark: words of a SentencePiece text with the spaces before them.
std::unique_ptr<Splitter> make_mark_splitter(std::string mark);
// One of the scanners above when the pattern is theirs, else PCRE2.
std::unique_ptr<Splitter> make_pattern_splitter(const std::string& pattern, SplitBehavior behavior,
                                                bool invert);
std::unique_ptr<Splitter> make_regex_splitter(const std::string& pattern, SplitBehavior behavior,
                                              bool invert);

// The patterns as their files write them.
extern const char* const kGpt2Pattern;
std::string cl100k_pattern(int digits);

}  // namespace retort::data
