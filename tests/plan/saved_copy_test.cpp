// The plan's copy of a save against the bytes that the saver keeps on real ranks.
#include "plan/saved_copy.h"

#include <gtest/gtest.h>

#include <mutex>

#include "plan/memory.h"
#include "tests/plan/shapes.h"
#include "tests/testing.h"
#include "train/saver.h"
#include "train/state_shares.h"

namespace retort::plan {
namespace {

const models::DecoderSpec kSpec{.vocabulary = 3000,
                                .context = 64,
                                .layers = 3,
                                .width = 96,
                                .heads = 3,
                                .kv_heads = 3,
                                .head_dim = 32,
                                .ffn_width = 300};

// The most of a rank.
uint64_t kept(int ranks, int64_t replicas, train::Divided kind, bool bf16) {
  const testing::TemporaryDirectory directory;
  std::mutex mutex;
  uint64_t most = 0;
  comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
    models::IdentityMap map;
    const auto model = models::make_model(kSpec);
    {
      const at::NoGradGuard no_grad;
      models::initialise(model->parameters(), "gpt2", 0.0, 1);
    }
    models::bind_working(model->parameters(), map, bf16 ? at::kBFloat16 : at::kFloat);
    const train::Trained trained(model->parameters(), nullptr);
    train::Owners owners(trained, comm, kind, model.get(), replicas);
    const auto optimizer = train::make_optimizer({}, trained);
    owners.divide_weights();
    train::StateShares shares = train::shares_of(trained, *optimizer, &owners, comm);
    train::CheckpointContent content{.step = 1,
                                     .extra = formats::Json::object(),
                                     .recipe = "run: {}\n",
                                     .weights = std::move(shares.weights),
                                     .optimizer = std::move(shares.optimizer),
                                     .shares = std::move(shares.shares)};
    train::Saver saver(local_files(), train::local_ranges(), comm, directory.path(), 1, "async");
    saver.start(std::move(content), train::Saver::Clock::now(), [](double) {});
    EXPECT_EQ(saver.finish().failure, "");
    const std::lock_guard lock(mutex);
    most = std::max(most, saver.copied_bytes());
  });
  return most;
}

void expect_kept(int ranks, int64_t replicas, bool bf16) {
  const auto model = shape(kSpec);
  const Batch batch{.ranks = ranks, .replicas = replicas};
  for (const auto& [kind, policy] : {std::pair{train::Divided::kNothing, Policy::kNone},
                                     std::pair{train::Divided::kMoments, Policy::kOptimizer},
                                     std::pair{train::Divided::kGradients, Policy::kGradients},
                                     std::pair{train::Divided::kParameters, Policy::kParameters}})
    EXPECT_NEAR(saved_bytes(saved_tensors(*model), batch, policy, bf16),
                static_cast<double>(kept(ranks, replicas, kind, bf16)), 8)
        << policy_name(policy) << " on " << ranks << " ranks in " << replicas << " groups, bf16 " << bf16
        << ": the step's number is another rank's";
}

}  // namespace

TEST(SavedCopy, IsWhatTheSaverKeeps) {
  expect_kept(1, 1, true);
  expect_kept(3, 1, true);
  expect_kept(4, 2, false);
}

}  // namespace retort::plan
