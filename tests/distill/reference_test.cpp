#include "distill/reference.h"

#include <gmock/gmock.h>

#include <mutex>

#include "core/error.h"
#include "distill/held_out.h"
#include "distill/preference.h"
#include "formats/safetensors.h"
#include "tests/distill/tiny_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using ::testing::HasSubstr;

class ReferenceTest : public ::testing::Test {
 protected:
  // Answers of 2 to 6 tokens below 32 after prompts of 3; pairs, or rated ones.
  std::shared_ptr<const data::TokenShards> write(const std::string& name, int documents,
                                                 data::ShardKind kind) const {
    const auto tokenizer = data::make_byte_tokenizer();
    data::TokenShardWriter writer(local_files(), directory_ / name, *tokenizer, "test", 64, true, kind);
    const bool pairs = kind == data::ShardKind::kPairs;
    for (int i = 0; i < documents; ++i) {
      const int prompt = pairs ? i / 2 : i;
      writer.add(std::vector<int32_t>{prompt % 32, (prompt + 9) % 32, 7}, 1, false, data::kRead);
      std::vector<int32_t> answer;
      for (int k = 0; k < 2 + (i * 5) % 7; ++k) answer.push_back((i * 3 + k * 11 + 1) % 32);
      writer.add(answer, 1, true, i % 2 == 0 ? data::kLearned : data::kLearnedAsWorse);
    }
    writer.finish();
    return std::make_shared<const data::TokenShards>(directory_ / name);
  }
  static std::unique_ptr<Reference> live(uint64_t seed = 3) {
    return make_live_reference(make_live_teacher(tiny_model(seed)));
  }
  static KeptLogP kept(const std::shared_ptr<const data::TokenShards>& shards) {
    return compute_log_p(*live(), AnswerBatches(shards, 16), at::kCPU, *comm::make_self_comm());
  }
  testing::TemporaryDirectory directory_;
};

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_F(ReferenceTest, BatchesHaveEveryRowOnceAndNoneAlone) {
  for (const int rows : {1, 2, 16, 17, 40, 49, 241}) {
    const AnswerBatches batches(write(fmt::format("r{}", rows), rows, data::ShardKind::kRated), 16);
    EXPECT_EQ(batches.rows(), rows);
    std::vector<int64_t> begins;
    for (int64_t n = 0; n < batches.size(); ++n) {
      const data::Batch batch = batches.batch(n);
      const at::Tensor first = batch.corpus_BT.select(1, 0).contiguous();
      EXPECT_TRUE(rows == 1 || first.numel() > 1) << rows;
      EXPECT_EQ(batch.chosen_B.numel(), first.numel());
      for (int64_t b = 0; b < first.numel(); ++b) begins.push_back(first[b].item<int64_t>());
    }
    EXPECT_EQ(begins, batches.begins()) << rows;
  }
}

// What is kept is what a live reference says, whatever the batch that asks.
TEST_F(ReferenceTest, KeptIsWhatALiveOneSays) {
  const auto first = write("a", 40, data::ShardKind::kPairs),
             second = write("b", 12, data::ShardKind::kPairs);
  const auto reference = live(), table = make_kept_reference({kept(first), kept(second)});
  const data::BatchStream stream({{"a", first, 2.0}, {"b", second, 1.0}},
                                 {.sequence = 16, .rows = 6, .seed = 4});
  for (int64_t n = 0; n < 12; ++n) {
    const data::Batch batch = stream.batch(n);
    const std::vector<double> theirs = reference->log_p(batch), ours = table->log_p(batch);
    for (size_t b = 0; b < theirs.size(); ++b) EXPECT_NEAR(ours[b], theirs[b], 1e-5) << n;
  }
  const data::BatchStream longer(write("c", 60, data::ShardKind::kPairs),
                                 {.sequence = 16, .rows = 60, .shuffle = false});
  EXPECT_THAT(error_of([&] { table->log_p(longer.batch(0)); }),
              HasSubstr("nothing was kept of the answer at token"));
}

TEST_F(ReferenceTest, AndHeldOutScoresAreTheSameOnAnyRanks) {
  const auto shards = write("a", 46, data::ShardKind::kPairs);
  const at::Tensor alone = kept(shards).log_p_R;
  const auto score = [&](comm::Comm& comm) {
    const auto model = tiny_model(5);
    const auto objective = make_preference(live(), {.loss = "dpo", .beta = 0.5});
    return score_held_out(*objective, *model, AnswerBatches(shards, 16), at::kCPU, comm);
  };
  const HeldOutScore expected = score(*comm::make_self_comm());
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      const KeptLogP mine = compute_log_p(*live(), AnswerBatches(shards, 16), at::kCPU, comm);
      const HeldOutScore held_out = score(comm);
      const std::lock_guard lock(mutex);
      EXPECT_TRUE(mine.log_p_R.equal(alone)) << ranks;
      EXPECT_EQ(held_out.loss, expected.loss);
      EXPECT_EQ(held_out.parts, expected.parts);
    });
  }
}

// The mean over all pairs, however they are cut into batches.
TEST_F(ReferenceTest, HeldOutScoresAreMeansOverPairs) {
  const auto shards = write("a", 46, data::ShardKind::kPairs);
  const auto model = tiny_model(5);
  const auto objective = make_preference(live(), {.loss = "dpo", .beta = 0.5});
  const HeldOutScore score =
      score_held_out(*objective, *model, AnswerBatches(shards, 16), at::kCPU, *comm::make_self_comm());
  const data::BatchStream all(shards, {.sequence = 16, .rows = 46, .shuffle = false});
  const train::LossSum whole = (*objective)(*model, all.batch(0));
  EXPECT_EQ(score.count, 23);
  EXPECT_NEAR(score.loss, whole.sum.item<double>() / 23, 1e-6);
  EXPECT_NEAR(score.parts.at("rewards/margins"), whole.parts.at(2).item<double>() / 23, 1e-6);
  EXPECT_EQ(score.parts.at("rewards/accuracies"), whole.parts.at(3).item<double>() / 23);
  EXPECT_GT(score.parts.at("rewards/accuracies"), 0.0);
  // Of rated answers too, whose baseline wants a neighbour.
  const auto rated = write("r", 17, data::ShardKind::kRated);
  const HeldOutScore kto = score_held_out(*make_preference(live(), {.loss = "kto"}), *model,
                                          AnswerBatches(rated, 16), at::kCPU, *comm::make_self_comm());
  EXPECT_EQ(kto.count, 17);
  EXPECT_TRUE(std::isfinite(kto.loss));
}

TEST_F(ReferenceTest, AFileIsReadForWhatItWasComputedFrom) {
  const auto shards = write("a", 20, data::ShardKind::kPairs);
  const KeptLogP numbers = kept(shards);
  const Path path = directory_ / "reference.safetensors";
  const auto identity = [&](uint64_t seed, at::ScalarType precision, int64_t sequence) {
    return reference_identity(tiny_model(seed)->parameters(), precision, {{"a", shards}},
                              {.sequence = sequence});
  };
  const std::string own = identity(3, at::kFloat, 16);
  EXPECT_FALSE(read_log_p(path, own));
  write_log_p(local_files(), path, {numbers}, own);
  const auto read = read_log_p(path, own);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->at(0).begins, numbers.begins);
  EXPECT_TRUE(read->at(0).log_p_R.equal(numbers.log_p_R));
  EXPECT_FALSE(read_log_p(path, identity(4, at::kFloat, 16))) << "other weights";
  EXPECT_FALSE(read_log_p(path, identity(3, at::kBFloat16, 16)));
  EXPECT_FALSE(read_log_p(path, identity(3, at::kFloat, 15)));
  EXPECT_NE(own, reference_identity(tiny_model(3)->parameters(), at::kFloat,
                                    {{"b", write("b", 22, data::ShardKind::kPairs)}}, {.sequence = 16}));
}

TEST_F(ReferenceTest, AFileThatDoesNotHoldIsRefused) {
  const Path path = directory_ / "reference.safetensors";
  const auto error = [&](const at::Tensor& begins, const at::Tensor& log_p) {
    formats::write_safetensors(local_files(), path, {{"source.0.begins", begins}, {"source.0.log_p", log_p}},
                               {{"retort.reference", "x"}});
    return error_of([&] { read_log_p(path, "x"); });
  };
  const at::Tensor begins = at::arange(3) * 5, log_p = at::zeros({3});
  EXPECT_EQ(error(begins, log_p), "no error");
  EXPECT_THAT(error(begins.flip(0), log_p), HasSubstr("in the corpus' order"));
  EXPECT_THAT(error(begins, at::zeros({2})), HasSubstr("a number for each of its rows"));
  EXPECT_THAT(error(begins, at::full({3}, std::numeric_limits<float>::infinity())), HasSubstr("not finite"));
  EXPECT_THAT(error(begins.to(at::kInt), log_p), HasSubstr("source.0.begins must be a vector of Long"));
}

}  // namespace retort::distill
