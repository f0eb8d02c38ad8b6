#include "train/divided_model.h"

#include <gtest/gtest.h>

#include "comm/together.h"
#include "core/error.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/stored_checkpoint.h"

namespace retort::train {
namespace {

// A run's only checkpoint, of a model of this seed.
LoadedCheckpoint saved(const Path& directory, uint64_t seed) {
  const TinyModel tiny(seed);
  CheckpointContent content;
  content.step = 3;
  content.weights = weights_of(tiny.model.parameters());
  content.recipe = "# tiny\n";
  save_checkpoint(local_files(), directory, content, 1);
  return load_checkpoint(checkpoint_path(directory, 3));
}

}  // namespace

// Of a checkpoint that no rank reads whole; what only the embedding's owner would hold is brought to all.
TEST(DividedModel, GivesTheStatesOfAWholeOne) {
  testing::TemporaryDirectory directory;
  const LoadedCheckpoint checkpoint = saved(directory.path(), 5);
  for (const int64_t replicas : {1, 2})
    comm::run_thread_ranks(4, [&](comm::Comm& comm) {
      const testing::Threads one_thread(1);
      const at::NoGradGuard no_grad;
      TinyModel whole(5);
      DividedModel divided(std::make_unique<models::Decoder>(tiny_spec(), at::kMeta), at::kFloat, comm,
                           replicas);
      int64_t asked = 0;
      const auto values = checkpoint_values(checkpoint, divided.model().parameters(), {});
      divided.take([&](const models::Parameter& p) {
        ++asked;
        return values(p);
      });
      EXPECT_EQ(comm.reduce(asked, comm::Reduce::kSum),
                replicas * std::ssize(divided.model().parameters().unique()))
          << "of one block each, that its owner asks for";
      const at::Tensor tokens_BT = tiny_batch(comm.rank()).tokens_BT;
      EXPECT_TRUE(testing::same_bits(divided.model().hidden({.tokens_BT = tokens_BT}),
                                     whole.model.hidden({.tokens_BT = tokens_BT})));
      divided.weights().forget();
      EXPECT_EQ(divided.weights().bytes(), 0);
      for (const models::Parameter& p : divided.model().parameters().unique())
        EXPECT_TRUE(p.frozen) << p.name;
    });
}

TEST(StoredCheckpoint, IsOfTheModelOrRefused) {
  testing::TemporaryDirectory directory;
  const LoadedCheckpoint checkpoint = saved(directory.path(), 5);
  models::DecoderSpec other = tiny_spec();
  other.layers = 3;
  EXPECT_THROW(checkpoint_values(checkpoint, models::Decoder(other, at::kMeta).parameters(), {}),
               CheckpointError);
  // What a model borrows is another's.
  models::Decoder model(tiny_spec(), at::kMeta);
  LoadedCheckpoint part = checkpoint;
  part.weights.erase("embed.weight");
  model.parameters().at("embed.weight").borrow();
  const auto values = checkpoint_values(part, model.parameters(),
                                        [](const models::Parameter& p) { return at::full(p.shape, 2.0); });
  EXPECT_EQ(values(model.parameters().at("embed.weight")).flatten()[0].item<double>(), 2.0);
  EXPECT_TRUE(testing::same_bits(values(model.parameters().at("layers.0.attn.q.weight")),
                                 checkpoint.weights.at("layers.0.attn.q.weight")));
}

}  // namespace retort::train
