#include "data/tokenizers/bpe_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/tokenizer_json.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A text file that goes with the object.
class TextFile {
 public:
  explicit TextFile(std::string_view text) { std::ofstream(path(), std::ios::binary) << text; }
  std::string path() const { return (directory_ / "text.txt").string(); }

 private:
  testing::TemporaryDirectory directory_;
};

BpeSpec train(const std::string& path, BpeTrainingOptions options) {
  Log log(stderr, "", true);
  return train_bpe({path}, options, log);
}

std::string some_text() {  // words of a small language, some more frequent than others
  static constexpr const char* kSyllables[] = {"lo",   "wer", "ne",  "sta", "ing",
                                               "tion", "re",  "qua", "x",   "mi"};
  std::string text;
  uint32_t state = 1;
  const auto draw = [&](uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 16) % below;
  };
  for (int i = 0; i < 20000; ++i) {
    for (uint32_t syllables = 1 + draw(3); syllables > 0; --syllables)
      text += kSyllables[std::min(draw(10), draw(10))];
    text += i % 12 == 0 ? "\n" : " ";
  }
  return text;
}

}  // namespace

TEST(BpeTraining, TakesTheMostFrequentPairFirst) {
  // Pieces: "low" 1, " low" 4, " lower" 2, " newest" 6, " widest" 3 (after Sennrich et al.).
  std::string text = "low";
  for (int i = 0; i < 4; ++i) text += " low";
  for (int i = 0; i < 2; ++i) text += " lower";
  for (int i = 0; i < 6; ++i) text += " newest";
  for (int i = 0; i < 3; ++i) text += " widest";
  const TextFile file(text);
  const BpeSpec spec = train(file.path(), {.vocabulary = 256 + 6 + 1});
  const std::vector<std::string> made(spec.tokens.begin() + 256, spec.tokens.end());
  // es and st stand 9 times each, and e < s; then es t, then lo and lo w (7), then those that stand 6 times,
  // the space before n first.
  EXPECT_THAT(made, ElementsAre("es", "est", "lo", "low", "\u0120n", "\u0120low", "<|endoftext|>"));
  EXPECT_EQ(spec.end, 262);
  const auto tokenizer = make_bpe_tokenizer(spec);
  EXPECT_THAT(tokenizer->encode("low lowest<|endoftext|>"), ElementsAre(259, 261, 257, 262));
}

TEST(BpeTraining, ThreadsAndTheOrderOfFilesChangeNothing) {
  const TextFile one(some_text()), two("other words, other words\n");
  Log log(stderr, "", true);
  const BpeTrainingOptions alone{.vocabulary = 400, .threads = 1}, four{.vocabulary = 400, .threads = 4};
  const auto print = [&](const std::vector<std::string>& files, const BpeTrainingOptions& options) {
    return make_bpe_tokenizer(train_bpe(files, options, log))->fingerprint();
  };
  const std::string expected = print({one.path(), two.path()}, alone);
  EXPECT_EQ(print({one.path(), two.path()}, four), expected);
  EXPECT_EQ(print({two.path(), one.path()}, four), expected);
}

TEST(BpeTraining, ATrainedVocabularyComesBackFromItsFiles) {
  const TextFile file(some_text());
  for (const char* pattern : {"gpt-2", "llama-bpe", "qwen2"}) {
    const auto trained = make_bpe_tokenizer(
        train(file.path(), {.vocabulary = 420, .special = {"<|a|>", "<|b|>"}, .pattern = pattern}));
    EXPECT_EQ(trained->vocabulary(), 420);
    EXPECT_EQ(trained->separator(), 418);
    const testing::TemporaryDirectory directory;
    for (const auto& [name, content] : trained->hf_files()) std::ofstream(directory / name) << content;
    const auto again = open_tokenizer(directory.path());
    EXPECT_EQ(again->fingerprint(), trained->fingerprint()) << pattern;
    EXPECT_EQ(again->separator(), trained->separator()) << pattern;
    EXPECT_TRUE(again->prefix().empty()) << pattern;
    const std::string text = some_text().substr(0, 5000) + "\u00E9\xFF<|b|>";
    EXPECT_EQ(again->encode(text), trained->encode(text)) << pattern;
    EXPECT_EQ(trained->decode(trained->encode(text)), text) << pattern;
    EXPECT_LT(trained->encode(text).size(), text.size() / 2) << pattern;
  }
}

TEST(BpeTraining, StopsWhereTheTextEnds) {
  const TextFile file("ab ab");
  const BpeSpec spec = train(file.path(), {.vocabulary = 1000, .special = {}});
  EXPECT_THAT(std::vector<std::string>(spec.tokens.begin() + 256, spec.tokens.end()), ElementsAre("ab"));
  EXPECT_FALSE(spec.end.has_value());
}

TEST(BpeTraining, RefusesOptions) {
  const TextFile file("ab ab");
  EXPECT_THROW(train(file.path(), {.vocabulary = 256}), ConfigError);
  EXPECT_THROW(train(file.path(), {.special = {"<|x|>", "<|x|>"}}), ConfigError);
  EXPECT_THROW(train(file.path(), {.special = {"x"}}), ConfigError);
  EXPECT_THROW(train(file.path(), {.special = {"ab"}}), ConfigError);  // a word of the text
  EXPECT_THROW(train(file.path(), {.pattern = "gpt2"}), ConfigError);
  EXPECT_THROW(train(file.path(), {.least_count = 0}), ConfigError);
}

}  // namespace retort::data
