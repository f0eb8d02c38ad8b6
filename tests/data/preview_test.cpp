#include "data/preview.h"

#include <gtest/gtest.h>

#include "tests/testing.h"

namespace retort::data {

TEST(Preview, ShowsWhatIsLearnedAndCountsWhatIsNot) {
  testing::TemporaryDirectory directory;
  const auto bytes = make_byte_tokenizer();
  {
    TokenShardWriter writer(local_files(), directory / "s", *bytes, "test", kShardTokens, /*loss_mask=*/true);
    const auto add = [&](const std::string& text, bool continues, bool learned) {
      writer.add(bytes->encode(text), text.size(), continues, learned);
    };
    add("Hi? ", false, false);
    add("Yes\x1b[2J.", true, true);
    add("no label", false, false);
    add(std::string(40, 'x'), false, true);
    writer.finish();
  }
  const TokenShards shards(directory / "s");
  EXPECT_EQ(preview(shards, {.samples = 1, .sequence = 16, .long_documents = "cut"}),
            "--- document at token 0: 12 tokens, 8 learned\nHi? \u27e6Yes\uFFFD[2J.\u27e7\n---\n"
            "3 documents, 60 tokens, 48 learned\nin rows of 16 tokens: 2 documents in 2 rows, 87.5 % filled\n"
            "truncated 1, dropped 0, split 0, without label 1\n");
  const std::string shown =
      preview(shards, {.samples = 9, .tokens = 10, .sequence = 16, .long_documents = "drop", .colour = true});
  EXPECT_NE(shown.find("Hi? \x1b[32mYes\uFFFD[2\x1b[0m\n... 2 more tokens"), std::string::npos) << shown;
  EXPECT_NE(shown.find("dropped 1"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("document at token 20"), shown.rfind("document at token 20")) << "each is shown once";
}

// As many as are asked for, or all there are, for any number.
TEST(Preview, MoreSamplesNeverShowFewerDocuments) {
  testing::TemporaryDirectory directory;
  const auto bytes = make_byte_tokenizer();
  {
    TokenShardWriter writer(local_files(), directory / "s", *bytes, "test", kShardTokens,
                            /*loss_mask=*/false);
    for (int i = 0; i < 20; ++i) writer.add(bytes->encode("\xC2\x9B[2J, say"), 12, false, true);
    writer.finish();
  }
  const TokenShards shards(directory / "s");
  size_t before = 0;
  for (const int64_t samples : {0, 1, 7, 19, 20, 21, 400, 1'000'000'000}) {
    const std::string shown = preview(shards, {.samples = samples, .sequence = 16});
    size_t count = 0;
    for (size_t at = 0; (at = shown.find("--- document", at)) != shown.npos; ++at) ++count;
    EXPECT_EQ(count, std::min<int64_t>(samples, 20)) << samples;
    EXPECT_GE(count, before);
    EXPECT_EQ(shown.find('\x9B'), shown.npos) << "a control sequence of a terminal";
    before = count;
  }
}

}  // namespace retort::data
