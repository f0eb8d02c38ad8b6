#include "train/embedding_noise.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"

namespace retort::train {
namespace {

using testing::TemporaryDirectory;

constexpr int64_t kWidth = 24;

// 120 documents of 1 to 20 tokens.
data::BatchStream stream_of(const Path& directory, data::BatchOptions options) {
  const auto shards = testing::write_corpus(directory, testing::random_documents(3, 120, 20, 200));
  options.seed = 9;
  return {shards, options};
}

// As the formula says, one number after another, with each document counted by itself.
at::Tensor expected_noise(const EmbeddingNoise& noise, const data::Batch& batch) {
  const int64_t tokens = batch.tokens_BT.size(1);
  const at::Tensor out_BTD = at::empty({batch.tokens_BT.size(0), tokens, kWidth});
  for (int64_t b = 0; b < out_BTD.size(0); ++b) {
    const Random random(noise.seed, "train/embedding_noise", 0,
                        static_cast<uint64_t>(batch.samples[static_cast<size_t>(b)]));
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t length =
          batch.document_BT.defined()
              ? batch.document_BT[b].eq(batch.document_BT[b][t].item<int64_t>()).sum().item<int64_t>()
              : tokens;
      const double most = noise.alpha / std::sqrt(static_cast<double>(length * kWidth));
      for (int64_t d = 0; d < kWidth; ++d)
        out_BTD[b][t][d] =
            static_cast<float>(most * (2.0 * random.uniform(static_cast<uint64_t>(t * kWidth + d)) - 1.0));
    }
  }
  return out_BTD;
}

}  // namespace

TEST(EmbeddingNoise, FollowsTheLengthOfEachTokensDocument) {
  const TemporaryDirectory directory;
  int made = 0;
  for (const int64_t sequence : {1, 20, 33, 64})
    for (const auto& [isolate, pack] : {std::pair{false, false}, {true, false}, {true, true}}) {
      const data::BatchStream stream =
          stream_of(directory / std::to_string(made++),
                    {.sequence = sequence, .rows = 3, .isolate_documents = isolate, .pack = pack});
      for (const EmbeddingNoise& noise : {EmbeddingNoise{5.0, 1}, EmbeddingNoise{15.0, 2}})
        for (const int64_t number : {0, 7}) {
          const data::Batch batch = stream.batch(number);
          EXPECT_TRUE(testing::same_bits(noise(batch, kWidth), expected_noise(noise, batch)))
              << sequence << isolate << pack;
        }
    }
}

// Mean 0, variance 1/3 and bounds of U(-1, 1), within four standard errors.
TEST(EmbeddingNoise, IsUniform) {
  data::Batch batch;
  batch.tokens_BT = at::zeros({16, 64}, at::kLong);
  for (int64_t i = 0; i < 16; ++i) batch.samples.push_back(i);
  for (const double alpha : {0.5, 5.0, 10.0, 15.0}) {
    const at::Tensor u =
        EmbeddingNoise{alpha, 4}(batch, 64).to(at::kDouble) * (std::sqrt(64.0 * 64.0) / alpha);
    const auto n = static_cast<double>(u.numel());
    EXPECT_LT(std::abs(u.mean().item<double>()), 4 * std::sqrt(1.0 / 3 / n));
    EXPECT_LT(std::abs(u.square().mean().item<double>() - 1.0 / 3), 4 * std::sqrt((1.0 / 5 - 1.0 / 9) / n));
    EXPECT_LE(u.abs().max().item<double>(), 1.0 + 1e-6);
    EXPECT_GT(u.max().item<double>(), 0.999);
    EXPECT_LT(u.min().item<double>(), -0.999);
  }
  EXPECT_FALSE((EmbeddingNoise{0.0, 4}(batch, 64).defined()));
}

TEST(EmbeddingNoise, IsOfItsSeedSampleAndPlace) {
  data::Batch batch;
  batch.tokens_BT = at::zeros({2, 8}, at::kLong);
  batch.samples = {6, 7};
  const at::Tensor noise_BTD = EmbeddingNoise{5.0, 1}(batch, 16);
  EXPECT_TRUE(testing::same_bits(EmbeddingNoise{5.0, 1}(batch, 16), noise_BTD));
  EXPECT_FALSE(at::equal(EmbeddingNoise{5.0, 2}(batch, 16), noise_BTD));
  EXPECT_EQ(std::get<0>(at::_unique(noise_BTD)).numel(), noise_BTD.numel());  // no two are alike
  batch.samples = {7, 8};
  EXPECT_TRUE(testing::same_bits((EmbeddingNoise{5.0, 1}(batch, 16)[0]), noise_BTD[1]));
}

// Micro-batches of 1 to 24 rows, over steps of 24.
TEST(EmbeddingNoise, IsTheSameHoweverAStepIsCut) {
  const TemporaryDirectory directory;
  const EmbeddingNoise noise{5.0, 8};
  std::vector<at::Tensor> whole;
  for (const int64_t rows : {24, 1, 2, 3, 4, 6, 8, 12}) {
    const data::BatchStream stream =
        stream_of(directory / std::to_string(rows), {.sequence = 32, .rows = rows, .pack = true});
    for (size_t step = 0; step < 3; ++step) {
      std::vector<at::Tensor> parts;
      for (int64_t i = 0; i < 24 / rows; ++i)
        parts.push_back(noise(stream.batch(static_cast<int64_t>(step) * (24 / rows) + i), kWidth));
      if (rows == 24) whole.push_back(parts.front());
      EXPECT_TRUE(testing::same_bits(at::cat(parts), whole[step])) << rows;
    }
  }
}

TEST(EmbeddingNoise, IsTheSameOnAnyRanksAndAfterAnyStop) {
  for (const bool isolate : {false, true}) {
    const auto noisy = [&](int ranks) {
      TinyRun run;
      run.options.steps = 6;
      run.noise = {15.0, 2};
      run.isolate_documents = isolate;
      run.ranks = ranks;
      run.micro_batches = 8 / ranks;
      return run;
    };
    const TemporaryDirectory whole_run;
    noisy(1)(whole_run.path());
    for (const int ranks : {2, 4, 8}) {
      const TemporaryDirectory run;
      noisy(ranks)(run.path());
      expect_same(whole_run.path(), run.path());
    }
    for (int64_t stop = 0; stop < 5; ++stop) {
      const TemporaryDirectory run;
      TinyRun first = noisy(stop % 2 == 0 ? 1 : 2), second = noisy(stop % 2 == 0 ? 4 : 1);
      first.before_step = stop_at(stop, 0);
      EXPECT_EQ(first(run.path()).steps, stop + 1);
      second(run.path());
      expect_same(whole_run.path(), run.path());
    }
    const TemporaryDirectory other_run;
    TinyRun plain = noisy(1);
    plain.noise = {};
    plain(other_run.path());
    EXPECT_NE(contents(other_run.path()), contents(whole_run.path()));
  }
}

TEST(EmbeddingNoise, ReachesCrossEntropy) {
  const at::NoGradGuard no_grad;
  TinyModel tiny;
  data::Batch batch = tiny_batch(3);
  batch.samples = {0, 1};
  const EmbeddingNoise noise{15.0, 2};
  const auto sum = [&](const EmbeddingNoise& of) { return (*make_cross_entropy(of))(tiny.model, batch).sum; };
  const at::Tensor h_BTD =
      tiny.model.hidden({.tokens_BT = batch.tokens_BT, .noise_BTD = noise(batch, tiny.model.width())});
  const at::Tensor log_p_NV =
      at::log_softmax(at::matmul(h_BTD, tiny.model.head().weight_VD.t()).flatten(0, 1).to(at::kDouble), 1);
  double expected = 0;
  for (int64_t i = 0; i < log_p_NV.size(0); ++i)
    if (const int64_t label = batch.labels_BT.flatten()[i].item<int64_t>(); label != data::kIgnored)
      expected -= log_p_NV[i][label].item<double>();
  EXPECT_NEAR(sum(noise).item<double>(), expected, 1e-5 * expected);
  EXPECT_GT(std::abs(sum({}).item<double>() - expected), 1e-3 * expected);
}

}  // namespace retort::train
