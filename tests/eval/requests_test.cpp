#include "eval/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/eval/golden.h"

namespace retort::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

std::vector<int32_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

}  // namespace

// Bytes have no begin token: GGUF names 0 for them.
TEST(Requests, SpaceAtAContextsEndBelongsToTheContinuation) {
  const auto tokenizer = data::make_byte_tokenizer();
  const RequestEncoder encoder(*tokenizer, 16);
  const TokenRequest plain = encoder.encode({"ab", " c"}, "here"),
                     moved = encoder.encode({"ab \n", "c"}, "here");
  EXPECT_EQ(plain.context, bytes("ab"));
  EXPECT_EQ(plain.continuation, bytes(" c"));
  EXPECT_EQ(moved.context, bytes("ab"));
  EXPECT_EQ(moved.continuation, bytes(" \nc"));
  const TokenRequest empty = encoder.encode({" ", "c"}, "here");
  EXPECT_THAT(empty.context, ElementsAre(encoder.prefix()));
  EXPECT_EQ(empty.continuation, bytes(" c"));
}

TEST(Requests, LoseTheirBeginningWhereTheyAreTooLong) {
  const auto tokenizer = data::make_byte_tokenizer();
  const RequestEncoder encoder(*tokenizer, 8);
  const TokenRequest cut = encoder.encode({"0123456789", "abc"}, "here");
  EXPECT_EQ(cut.context, bytes("456789"));  // 8 tokens are read: these and ab
  EXPECT_EQ(cut.continuation, bytes("abc"));
  EXPECT_EQ(encoder.encode({"0", "abcdefgh"}, "here").context, bytes("0"));
  EXPECT_THAT(refusal([&] {
                encoder.encode({"0", "abcdefghi"}, "file:7");
              }),
              HasSubstr("file:7: a continuation must fit the window of 8 tokens, got 9"));
  EXPECT_THAT(refusal([&] { encoder.encode({"0", ""}, "file:7"); }), HasSubstr("at least one token"));
  EXPECT_EQ(encoder.encode_prompt("0123456789", 3), bytes("56789"));
}

// Every token is predicted once, and no input is longer than the window.
TEST(Requests, RollingWindowsAreDisjoint) {
  const auto tokenizer = data::make_byte_tokenizer();
  const RequestEncoder encoder(*tokenizer, 8);
  for (const size_t length : {1u, 7u, 8u, 9u, 16u, 21u}) {
    const std::string text = std::string("abcdefghijklmnopqrstu").substr(0, length);
    std::vector<int32_t> predicted;
    for (const TokenRequest& window : encoder.encode_rolling(text, "here")) {
      EXPECT_LE(window.context.size() + window.continuation.size(), 9u);
      if (!predicted.empty()) {
        EXPECT_EQ(window.context.size() + window.continuation.size(), 9u);
        EXPECT_EQ(window.context.back(), predicted.back());
      }
      predicted.insert(predicted.end(), window.continuation.begin(), window.continuation.end());
    }
    EXPECT_EQ(predicted, bytes(text)) << length;
  }
}

TEST(Requests, ATokenizersBeginIsPutBeforeWholeTexts) {
  RETORT_NEEDS_TEST_DATA();
  const auto tokenizer = data::open_tokenizer(testing::stories_folder());
  const RequestEncoder encoder(*tokenizer, 64);
  EXPECT_EQ(encoder.prefix(), 1);
  EXPECT_EQ(encoder.encode_whole("Once").front(), 1);
  EXPECT_EQ(encoder.encode_whole("<s>Once"), encoder.encode_whole("Once"));
  EXPECT_EQ(encoder.encode({"", " Once"}, "here").context, std::vector<int32_t>{1});
  EXPECT_NE(encoder.encode({"", " Once"}, "here").continuation.front(), 1);
}

}  // namespace retort::eval
