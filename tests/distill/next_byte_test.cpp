#include "distill/next_byte.h"

#include <cmath>

#include "core/random.h"
#include "tests/distill/word_tokenizer.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

// 0 is a mark, 1 writes nothing, and two tokens write "ab".
testing::WordTokenizer words() {
  return testing::WordTokenizer(
      {"<end>", "", "a", "b", "ab", "abc", "abd", "ab", " a", " ", "\xC3\xA9", "\xC3\xA8"}, {0});
}

std::vector<float> random_logits(size_t count, double scale) {
  at::Tensor x = at::empty({static_cast<int64_t>(count)});
  Random(5, "logits").fill_normal(x, scale);
  return {x.const_data_ptr<float>(), x.const_data_ptr<float>() + count};
}

// Over all tokens, in f64: what begins with u b against what begins with u and is longer.
std::array<double, 256> by_enumeration(const data::Tokenizer& tokenizer, const std::vector<float>& logits,
                                       std::string_view u) {
  std::array<double, 256> p{};
  double all = 0;
  for (int32_t id = 0; id < tokenizer.vocabulary(); ++id) {
    const std::string_view token = tokenizer.token_bytes(id);
    if (tokenizer.is_special(id) || token.size() <= u.size() || !token.starts_with(u)) continue;
    const double mass = std::exp(static_cast<double>(logits[static_cast<size_t>(id)]));
    p[static_cast<unsigned char>(token[u.size()])] += mass;
    all += mass;
  }
  for (double& x : p) x /= all;
  return p;
}

std::array<float, 256> asked(const NextByte& next, const std::vector<float>& logits, std::string_view u) {
  std::array<float, 256> out{};
  next.log_probabilities(logits, u, out);
  return out;
}

TEST(NextByte, IsTheMassOfTheTokensThatBringIt) {
  const auto tokenizer = words();
  const NextByte next(tokenizer);
  const auto logits = random_logits(12, 2.0);
  for (const std::string_view u : {"", "a", "ab", " ", "\xC3"}) {
    const auto expected = by_enumeration(tokenizer, logits, u);
    const auto got = asked(next, logits, u);
    for (size_t b = 0; b < 256; ++b) {
      if (expected[b] == 0)
        EXPECT_EQ(got[b], kNoByte);
      else
        EXPECT_NEAR(got[b], std::log(expected[b]), 1e-6) << u << " " << b;
    }
  }
}

TEST(NextByte, BytesOfATokenMultiplyToItsProbability) {
  const auto tokenizer = words();
  const NextByte next(tokenizer);
  const auto logits = random_logits(12, 2.0);
  std::array<double, 12> p{};  // of the tokens that write
  double all = 0;
  for (int32_t id = 2; id < 12; ++id)
    all += p[static_cast<size_t>(id)] = std::exp(logits[static_cast<size_t>(id)]);
  // "abd": not over at "a" (a), nor at "ab" (both of them), and over at "abd".
  const double began_a = (p[2] + p[4] + p[5] + p[6] + p[7]) / all;
  const double longer_a = 1 - p[2] / all / began_a;
  const double began_ab = (p[4] + p[5] + p[6] + p[7]) / all;
  const double longer_ab = 1 - (p[4] + p[7]) / all / began_ab;
  const double bytes =
      asked(next, logits, "")['a'] + asked(next, logits, "a")['b'] + asked(next, logits, "ab")['d'];
  EXPECT_NEAR(bytes + std::log(longer_a) + std::log(longer_ab), std::log(p[6] / all), 1e-5);
}

// Tokens are drawn one by one and only their bytes are seen: the mean over where tokens ended is the
// distribution of the byte after "a".
TEST(NextByte, MixesOverSegmentationsToTheDistributionOfBytes) {
  const testing::WordTokenizer tokenizer({"a", "b", "ab"});
  const NextByte next(tokenizer);
  const std::vector<float> logits = {std::log(0.5f), std::log(0.2f), std::log(0.3f)};
  const double ended = 0.5 / (0.5 + 0.3);  // "a" was a token
  const double mixture =
      ended * std::exp(asked(next, logits, "")['b']) + (1 - ended) * std::exp(asked(next, logits, "a")['b']);
  EXPECT_NEAR(mixture, (0.5 * 0.2 + 0.3) / (0.5 + 0.3), 1e-6);  // P("ab") / P("a")
}

TEST(NextByte, UnlikelyBeginningsKeepTheirRatios) {
  const auto tokenizer = words();
  const NextByte next(tokenizer);
  std::vector<float> logits(12, 0.0f);
  logits[5] = -200.0f, logits[6] = -202.0f;  // "abc" and "abd", e^-200 of the mass
  const auto got = asked(next, logits, "ab");
  EXPECT_NEAR(got['c'], -std::log1p(std::exp(-2.0)), 1e-6);
  EXPECT_NEAR(got['d'], -2 - std::log1p(std::exp(-2.0)), 1e-6);
}

TEST(NextByte, ASickTeacherStaysVisible) {
  const auto tokenizer = words();
  const NextByte next(tokenizer);
  std::vector<float> logits(12, 0.0f);
  logits[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(asked(next, logits, "ab")['d']));
}

TEST(NextByte, RefusesAVocabularyWithoutText) {
  EXPECT_THROW(NextByte(testing::WordTokenizer({"<end>", ""}, {0})), DataError);
}

}  // namespace
}  // namespace retort::distill
