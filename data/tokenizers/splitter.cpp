#include "data/tokenizers/splitter.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/unicode.h"

namespace retort::data {
namespace {

using enum CharacterClass;

// A position in a text that looks at classes of characters. ASCII takes no decoding.
class Scanner {
 public:
  Scanner(const CharacterClass* classes, std::string_view text)
      : classes_(classes), end_(text.data() + text.size()) {}

  struct Next {
    CharacterClass kind;
    uint32_t bytes;
  };
  Next next(const char* at) const {
    const auto byte = static_cast<unsigned char>(*at);
    if (byte < 0x80) return {classes_[byte], 1};
    const Character c = decode_utf8(at, end_);
    return {classes_[c.value], c.bytes};
  }
  const char* end() const { return end_; }
  bool is(const char* at, CharacterClass kind) const { return at < end_ && next(at).kind == kind; }

  const char* skip(const char* at, CharacterClass kind) const {
    while (at < end_) {
      const Next n = next(at);
      if (n.kind != kind) break;
      at += n.bytes;
    }
    return at;
  }
  // \s+(?!\S)|\s+ : white space without its last character, unless that is all there is or the text's end.
  const char* spaces(const char* at) const {
    const char *last = at, *stop = at;
    while (stop < end_) {
      const Next n = next(stop);
      if (n.kind != kSpace) break;
      last = stop;
      stop += n.bytes;
    }
    return stop == end_ || last == at ? stop : last;
  }

 private:
  const CharacterClass* classes_;
  const char* end_;
};

template <class Piece>
void split_by(std::string_view text, size_t offset, std::vector<size_t>& ends, const Piece& piece) {
  const char* const begin = text.data();
  for (const char *at = begin, *end = begin + text.size(); at < end;) {
    at = piece(at);
    ends.push_back(offset + static_cast<size_t>(at - begin));
  }
}

// Bytes of 's 't 'm 'd 're 've 'll at `at`, which is an apostrophe; 0 for none of them.
size_t contraction(const char* at, const char* end, bool ignore_case) {
  const auto letter = [&](ptrdiff_t i) {
    const char c = at + i < end ? at[i] : '\0';
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    case '\xC5':  // U+017F, the long s, is an s without its case
      return ignore_case && letter(2) == '\xBF' ? 3 : 0;
    default:
      return 0;
  }
}

class Gpt2Splitter final : public Splitter {
 public:
  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    const Scanner scan(classes_, text);
    split_by(text, offset, ends, [&](const char* at) { return piece(scan, at); });
  }
  std::string rule() const override { return "gpt2"; }

 private:
  static const char* piece(const Scanner& scan, const char* at) {
    if (*at == '\'')
      if (const size_t bytes = contraction(at, scan.end(), false); bytes > 0) return at + bytes;
    Scanner::Next n = scan.next(at);
    const char* begin = at;
    if (*at == ' ' && at + 1 < scan.end()) {
      if (const Scanner::Next after = scan.next(at + 1); after.kind != kSpace) n = after, ++begin;
    }
    return n.kind == kSpace ? scan.spaces(at) : scan.skip(begin + n.bytes, n.kind);
  }
  const CharacterClass* classes_ = character_classes();
};

class Cl100kSplitter final : public Splitter {
 public:
  explicit Cl100kSplitter(int digits) : digits_(digits) {}
  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    const Scanner scan(classes_, text);
    split_by(text, offset, ends, [&](const char* at) { return piece(scan, at); });
  }
  std::string rule() const override { return fmt::format("cl100k {}", digits_); }

 private:
  static bool breaks(char c) { return c == '\r' || c == '\n'; }

  const char* piece(const Scanner& scan, const char* at) const {
    const char* const end = scan.end();
    if (*at == '\'')
      if (const size_t bytes = contraction(at, end, true); bytes > 0) return at + bytes;
    Scanner::Next n = scan.next(at);
    if (n.kind == kLetter) return scan.skip(at + n.bytes, kLetter);
    if (n.kind == kNumber) {
      for (int i = 0; i < digits_ && scan.is(at, kNumber); ++i) at += scan.next(at).bytes;
      return at;
    }
    if (!breaks(*at) && scan.is(at + n.bytes, kLetter)) return scan.skip(at + n.bytes, kLetter);
    const char* begin = at;
    if (*at == ' ' && scan.is(at + 1, kOther)) n = scan.next(++begin);
    if (n.kind == kOther) {
      at = scan.skip(begin + n.bytes, kOther);
      while (at < end && breaks(*at)) ++at;
      return at;
    }
    const char* const stop = scan.skip(at, kSpace);
    for (const char* last = stop; last > at; --last)
      if (breaks(last[-1])) return last;
    return scan.spaces(at);
  }
  const CharacterClass* classes_ = character_classes();
  int digits_;
};

class DigitSplitter final : public Splitter {
 public:
  explicit DigitSplitter(bool individual) : individual_(individual) {}
  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    const Scanner scan(classes_, text);
    split_by(text, offset, ends, [&](const char* at) {
      const Scanner::Next n = scan.next(at);
      at += n.bytes;
      if (n.kind == kNumber) return individual_ ? at : scan.skip(at, kNumber);
      while (at < scan.end() && !scan.is(at, kNumber)) at += scan.next(at).bytes;
      return at;
    });
  }
  std::string rule() const override { return individual_ ? "digits 1" : "digits"; }

 private:
  const CharacterClass* classes_ = character_classes();
  bool individual_;
};

class LiteralSplitter final : public Splitter {
 public:
  LiteralSplitter(std::string literal, SplitBehavior behavior, bool invert)
      : literal_(std::move(literal)), behavior_(behavior), invert_(invert) {}
  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    std::vector<Stretch> stretches;
    size_t at = 0;
    while (at < text.size()) {
      const size_t found = literal_.empty() ? text.npos : text.find(literal_, at);
      if (const size_t gap = std::min(found, text.size()); gap > at) stretches.push_back({gap, invert_});
      if (found == text.npos) break;
      at = found + literal_.size();
      stretches.push_back({at, !invert_});
    }
    join_stretches(stretches, behavior_, offset, ends);
  }
  std::string rule() const override {
    return fmt::format("literal {} {} {}", literal_, static_cast<int>(behavior_), invert_);
  }

 private:
  std::string literal_;
  SplitBehavior behavior_;
  bool invert_;
};

class MarkSplitter final : public Splitter {
 public:
  explicit MarkSplitter(std::string mark) : mark_(std::move(mark)) {}
  void split(std::string_view text, size_t offset, std::vector<size_t>& ends) const override {
    size_t free = 0;  // a mark here follows a mark, or begins the text
    for (size_t at = text.find(mark_); at != text.npos; at = text.find(mark_, free)) {
      if (at != free) ends.push_back(offset + at);
      free = at + mark_.size();
    }
    if (!text.empty()) ends.push_back(offset + text.size());
  }
  std::string rule() const override { return "mark " + mark_; }

 private:
  std::string mark_;
};

}  // namespace

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string cl100k_pattern(int digits) {
  return fmt::format(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}|)"
                     R"( ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
                     digits > 1 ? fmt::format("{{1,{}}}", digits) : "");
}

void join_stretches(const std::vector<Stretch>& stretches, SplitBehavior behavior, size_t offset,
                    std::vector<size_t>& ends) {
  const size_t count = stretches.size();
  for (size_t i = 0; i < count; ++i) {
    const bool match = stretches[i].match, last = i + 1 == count;
    const bool next = !last && stretches[i + 1].match;
    bool ends_here = true;
    switch (behavior) {
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kContiguous:
        ends_here = last || match != next;
        break;
      case SplitBehavior::kMergedWithPrevious:  // a match joins what it follows, unless that is a match
        ends_here = match || !next;
        break;
      case SplitBehavior::kMergedWithNext:  // of matches in a row, the last joins what follows
        ends_here = last || !match || next;
        break;
    }
    if (ends_here) ends.push_back(offset + stretches[i].end);
  }
}

std::unique_ptr<Splitter> make_gpt2_splitter() { return std::make_unique<Gpt2Splitter>(); }
std::unique_ptr<Splitter> make_cl100k_splitter(int digits) {
  return std::make_unique<Cl100kSplitter>(digits);
}
std::unique_ptr<Splitter> make_digit_splitter(bool individual) {
  return std::make_unique<DigitSplitter>(individual);
}
std::unique_ptr<Splitter> make_literal_splitter(std::string literal, SplitBehavior behavior, bool invert) {
  return std::make_unique<LiteralSplitter>(std::move(literal), behavior, invert);
}

std::unique_ptr<Splitter> make_mark_splitter(std::string mark) {
  return std::make_unique<MarkSplitter>(std::move(mark));
}

std::unique_ptr<Splitter> make_pattern_splitter(const std::string& pattern, SplitBehavior behavior,
                                                bool invert) {
  // These patterns match every character, so all that is asked is that matches stay apart.
  if (behavior == SplitBehavior::kIsolated) {
    if (pattern == kGpt2Pattern) return make_gpt2_splitter();
    for (const int digits : {1, 3})
      if (pattern == cl100k_pattern(digits)) return make_cl100k_splitter(digits);
  }
  return make_regex_splitter(pattern, behavior, invert);
}

}  // namespace retort::data
