#include "eval/text_stream.h"

#include <gtest/gtest.h>

namespace retort::eval {
namespace {

// Tokens that are pieces of text.
class Pieces final : public data::Tokenizer {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::string name() const override { return "pieces"; }
  int64_t vocabulary() const override { return std::ssize(pieces_); }
  std::vector<int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int32_t>) const override { return {}; }
  std::string_view token_bytes(int32_t id) const override { return pieces_.at(static_cast<size_t>(id)); }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override { return ""; }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }

 private:
  std::vector<std::string> pieces_;
};

// What is printed for the tokens 0, 1, ..., a bar after each push.
std::string printed(const std::vector<std::string>& pieces, const std::vector<std::string>& stops = {}) {
  const Pieces tokenizer(pieces);
  TextStream stream(tokenizer, stops);
  std::string out;
  for (int32_t id = 0; id < std::ssize(pieces) && !stream.stopped(); ++id) out += stream.push(id) + "|";
  return out + stream.finish() + (stream.stopped() ? "!" : "");
}

}  // namespace

TEST(TextStream, TokensKeepTheirSpaces) { EXPECT_EQ(printed({" Hello", " world", ","}), " Hello| world|,|"); }

TEST(TextStream, CharactersAreWhole) {
  const std::string euro = "\u20ac";
  const std::vector<std::string> pieces = {"a" + euro.substr(0, 1), euro.substr(1, 1), euro.substr(2) + "b",
                                           "c"};
  EXPECT_EQ(printed(pieces), "a||" + euro + "b|c|");
  // Cut off at the end, or no character at all.
  EXPECT_EQ(printed({euro.substr(0, 2)}), "|\ufffd");
  EXPECT_EQ(printed({"\xff", "a\x80", "b"}), "\ufffd|a\ufffd|b|");
}

TEST(TextStream, AStopIsFoundAcrossTokens) {
  EXPECT_EQ(printed({"one", " st", "o", "p", " two"}, {" stop"}), "one||||!");
  EXPECT_EQ(printed({"one st", "op two"}, {"stop"}), "one ||!");
  EXPECT_EQ(printed({"a stop b"}, {"stop"}), "a |!");
  EXPECT_EQ(printed({"first\n", "\n", "second"}, {"\n\n", "###"}), "first||!");
  // The earliest of several.
  EXPECT_EQ(printed({"a, b; c"}, {";", ","}), "a|!");
}

TEST(TextStream, WhatOnlyBeganLikeAStopIsPrinted) {
  EXPECT_EQ(printed({"s", "t", "o", "re"}, {"stop"}), "|||store|");
  EXPECT_EQ(printed({"aaa", "aab"}, {"aaaab"}), "|a|!");  // the stop began at the second a
  EXPECT_EQ(printed({"so", "st"}, {"stop"}), "so||st");
}

}  // namespace retort::eval
