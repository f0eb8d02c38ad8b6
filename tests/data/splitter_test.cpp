#include "data/tokenizers/splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "core/error.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/unicode.h"

namespace retort::data {
namespace {

using formats::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> cut(std::string_view text, const std::vector<size_t>& ends) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (const size_t end : ends) {
    out.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin, text.size());
  return out;
}
std::vector<std::string> pieces(const Splitter& splitter, std::string_view text) {
  std::vector<size_t> ends;
  splitter.split(text, 0, ends);
  return cut(text, ends);
}
std::vector<std::string> pieces(const PreTokenizer& pre, std::string_view text) {
  std::vector<size_t> ends;
  pre.split(text, ends);
  return cut(text, ends);
}

// Characters of all kinds, much white space, contractions; some bytes that are no text.
std::string random_text(std::mt19937& random, bool malformed) {
  static const std::vector<std::string> parts = {
      " ",      "  ",      "\n", "\r\n",       "\t",     "'s",      "'LL",    "'\u017F",
      "123",    "4567890", "a",  "Zebra",      "\u00E9", "e\u0301", "\u3000", "\u4E2D\u6587",
      "\u0660", "!?",      "_",  "\U0001F600", "\u200D", "\u00BD",  "\u2028", "'"};
  std::string text;
  const auto count = random() % 30;
  for (size_t i = 0; i < count; ++i) {
    const auto kind = random() % 8;
    if (kind == 0)
      append_utf8(text, static_cast<char32_t>(random() % 0xD800));
    else if (kind == 1)
      text += static_cast<char>(32 + random() % 95);
    else if (kind == 2 && malformed)
      text += static_cast<char>(128 + random() % 128);
    else
      text += parts[random() % parts.size()];
  }
  return text;
}

// PCRE2 knows an older Unicode, and its \s has U+180E.
bool differs_in_pcre2(std::string_view text) {
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    const Character c = decode_utf8(at, end);
    if (c.value == 0x180E || c.value == 0x1C89 || c.value == 0x1C8A ||
        (c.value >= 0xA7CB && c.value <= 0xA7DC))
      return true;
    at += c.bytes;
  }
  return false;
}

}  // namespace

TEST(Splitter, ScannersEqualTheirPatterns) {
  struct Row {
    std::string pattern;
    std::unique_ptr<Splitter> scanner;
  };
  std::vector<Row> rows;
  rows.push_back({kGpt2Pattern, make_gpt2_splitter()});
  rows.push_back({cl100k_pattern(1), make_cl100k_splitter(1)});
  rows.push_back({cl100k_pattern(3), make_cl100k_splitter(3)});
  std::mt19937 random(1);
  for (const Row& row : rows) {
    const auto pattern = make_regex_splitter(row.pattern, SplitBehavior::kIsolated, false);
    for (int i = 0; i < 5000; ++i) {
      const std::string text = random_text(random, false);
      if (differs_in_pcre2(text)) continue;
      ASSERT_EQ(pieces(*row.scanner, text), pieces(*pattern, text)) << row.pattern << "\n" << text;
    }
  }
}

TEST(Splitter, KnownPatternsTakeTheirScanner) {
  const auto isolated = SplitBehavior::kIsolated;
  EXPECT_EQ(make_pattern_splitter(kGpt2Pattern, isolated, false)->rule(), "gpt2");
  EXPECT_EQ(make_pattern_splitter(cl100k_pattern(3), isolated, false)->rule(), "cl100k 3");
  EXPECT_EQ(make_pattern_splitter(cl100k_pattern(1), isolated, false)->rule(), "cl100k 1");
  EXPECT_THAT(make_pattern_splitter("\\d", isolated, false)->rule(), HasSubstr("regex \\d"));
  // As Llama 3 and Qwen 2 write them.
  EXPECT_EQ(
      cl100k_pattern(3),
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
      "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
  EXPECT_THAT(cl100k_pattern(1), HasSubstr("|\\p{N}|"));
}

TEST(Splitter, LosesNothingOfMalformedText) {
  std::mt19937 random(2);
  const auto gpt2 = make_gpt2_splitter(), llama = make_cl100k_splitter(3), digits = make_digit_splitter(true);
  const auto regex = make_regex_splitter("\\p{L}+|\\s", SplitBehavior::kIsolated, false);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_text(random, true);
    for (const Splitter* splitter : {gpt2.get(), llama.get(), digits.get(), regex.get()}) {
      std::string joined;
      for (const std::string& piece : pieces(*splitter, text)) {
        ASSERT_FALSE(piece.empty());
        joined += piece;
      }
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(Splitter, GoesByExample) {
  EXPECT_THAT(pieces(*make_gpt2_splitter(), "it's  10 km\n\nfar !"),
              ElementsAre("it", "'s", " ", " 10", " km", "\n", "\n", "far", " !"));
  EXPECT_THAT(pieces(*make_cl100k_splitter(3), "IT'S 12345!\n\n  x"),
              ElementsAre("IT", "'S", " ", "123", "45", "!\n\n", " ", " x"));
  EXPECT_THAT(pieces(*make_digit_splitter(true), "a12b"), ElementsAre("a", "1", "2", "b"));
  EXPECT_THAT(pieces(*make_digit_splitter(false), "a12b"), ElementsAre("a", "12", "b"));
  EXPECT_THAT(pieces(*make_mark_splitter("_"), "__a_b_"), ElementsAre("__a", "_b", "_"));
}

// The four behaviors, as the documentation of Hugging Face's tokenizers shows them.
TEST(Splitter, BehaviorsJoinMatches) {
  const auto split = [](SplitBehavior behavior) {
    return pieces(*make_literal_splitter("-", behavior, false), "the-final--countdown");
  };
  EXPECT_THAT(split(SplitBehavior::kIsolated), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithPrevious), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split(SplitBehavior::kMergedWithNext), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split(SplitBehavior::kContiguous), ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(RegexSplitter, RefusesABadPatternAndStopsAnEndlessOne) {
  try {
    make_regex_splitter("a(b", SplitBehavior::kIsolated, false);
    FAIL() << "accepted a bad pattern";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("a(b fails at character 3"));
  }
  const auto endless = make_regex_splitter("^(a+)+$", SplitBehavior::kIsolated, false);
  EXPECT_THROW(pieces(*endless, std::string(64, 'a') + "!"), DataError);
}

// A run of white space, whatever its length: o200k's branches go over it several times. (tokenizers takes it.)
TEST(RegexSplitter, TakesMillionsOfSpaces) {
  const auto o200k = make_regex_splitter(
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      SplitBehavior::kIsolated, false);
  for (const char space : {' ', '\t'}) {
    const std::string run(2200000, space);
    EXPECT_EQ(pieces(*o200k, run + "a").size(), 2u);
    EXPECT_EQ(pieces(*o200k, run).size(), 1u);
  }
}

TEST(Normalizer, DoesItsStepsInTurn) {
  const Json steps = Json::parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"},
    {"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})");
  EXPECT_EQ(Normalizer(steps, "x").apply("e\u0301 b"), "_\u00E9_b");
  EXPECT_EQ(Normalizer(steps, "x").apply(""), "");
  EXPECT_TRUE(Normalizer(nullptr, "x").empty());
  EXPECT_TRUE(Normalizer(steps, "x").composes());
  EXPECT_EQ(replaced("aaa", "aa", "b"), "ba");
  try {
    Normalizer(Json{{"type", "Lowercase"}}, "t.json");
    FAIL() << "accepted Lowercase";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("t.json: normalizer: type must be one of NFC, Prepend, Replace, Sequence, got "
                          "\"Lowercase\""));
  }
}

TEST(PreTokenizer, AddsASpaceWhereItIsAsked) {
  const PreTokenizer first(
      Json::parse(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})"), "x");
  EXPECT_EQ(first.prepare("a b", Before::kNothing), "_a_b");
  EXPECT_EQ(first.prepare("a b", Before::kToken), "a_b");
  EXPECT_EQ(first.prepare(" a", Before::kNothing), "_a");
  EXPECT_THAT(pieces(first, "_a_b"), ElementsAre("_a", "_b"));
  const PreTokenizer bytes(Json::parse(R"({"type": "ByteLevel", "add_prefix_space": true})"), "x");
  EXPECT_TRUE(bytes.byte_level());
  EXPECT_EQ(bytes.prepare("a", Before::kToken), " a");
  EXPECT_EQ(bytes.prepare("a", Before::kText), "a");
  EXPECT_EQ(bytes.prepare(" a", Before::kToken), " a");
  const PreTokenizer none(nullptr, "x");
  EXPECT_THAT(pieces(none, "a b"), ElementsAre("a b"));
}

TEST(PreTokenizer, RefusesWhatItCannotDo) {
  const auto refuses = [](const char* json, const char* why) {
    try {
      PreTokenizer(Json::parse(json), "t.json");
      ADD_FAILURE() << "accepted " << json;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr(why));
    }
  };
  refuses(R"({"type": "BertPreTokenizer"})", "got \"BertPreTokenizer\"");
  refuses(R"({"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"})", "got \"Removed\"");
  refuses(R"({"type": "Split", "pattern": "x", "behavior": "Isolated"})", "must have a pattern");
  refuses(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})", "prepend_scheme");
  refuses(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]})",
          "must come first");
  refuses(R"([])", "must be an object");
}

}  // namespace retort::data
