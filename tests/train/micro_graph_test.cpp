// What tests/fake_device/micro_graph_test.cpp shows on a device, as far as it is the host's: which models are repeated, and
// that gradients of a pass by itself are those of a micro-batch.
#include "train/micro_graph.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/family.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/objective.h"

namespace retort::train {
namespace {

TEST(MicroGraphs, ModelsWhoseShapesFollowFromTheTextAreNotRepeated) {
  models::DecoderSpec spec = models::families().at("spacebyte").defaults;
  spec.vocabulary = 256, spec.context = 64, spec.layers = 1, spec.width = 24;
  spec.heads = 2, spec.kv_heads = 2, spec.head_dim = 12, spec.ffn_width = 24, spec.tie_embeddings = false;
  spec.patch = models::PatchSpec{.width = 16, .layers = 2, .heads = 2, .ffn_width = 24};
  const auto bytes = models::make_model(spec);
  EXPECT_NE(not_repeatable(*bytes), "");
  EXPECT_EQ(not_repeatable("", *bytes), not_repeatable(*bytes));
  EXPECT_EQ(not_repeatable("the objective draws", *bytes), "the objective draws");
  TinyModel tiny;
  EXPECT_EQ(not_repeatable(tiny.model), "");
  EXPECT_EQ(not_repeatable(make_cross_entropy()->not_repeatable(), tiny.model), "");
  EXPECT_EQ(not_repeatable("the objective draws", tiny.model), "the objective draws");
}

// The sums of steps of three micro-batches; apart, what a pass made is lost when the next one begins.
std::vector<at::Tensor> sums(bool apart) {
  TinyModel tiny;
  const Trained trained(tiny.model.parameters());
  const auto comm = comm::make_self_comm();
  GradSync sync(trained, *comm, 3);
  const auto objective = make_cross_entropy();
  const auto pass = [&](const data::Batch& batch, const at::Tensor& divisor) {
    const LossSum loss = (*objective)(tiny.model, batch);
    (loss.sum / divisor.item<double>()).backward();
    return loss.sum.detach().reshape({1}).to(at::kDouble);
  };
  MicroGraphs micro_graphs(trained, sync, pass, nullptr, nullptr);
  std::vector<at::Tensor> out;
  for (int64_t step = 0; step < 2; ++step) {
    sync.begin_step(/*fingerprints=*/true);
    micro_graphs.begin_step(60.0);
    for (int64_t g = 0; g < 3; ++g) {
      if (!apart) {
        out.push_back(micro_graphs.run(g, tiny_batch(3 * step + g)));
        continue;
      }
      std::vector<GradSync::Made> made =
          sync.made_by([&] { out.push_back(pass(tiny_batch(3 * step + g), at::scalar_tensor(60.0))); });
      sync.add_micro_batch(g, made);
      if (g < 2)
        for (const GradSync::Made& one : made) one.gradient.fill_(NAN);  // as the next replay may
    }
    for (const at::Tensor& sum : sync.finish()) out.push_back(sum.clone());
    out.push_back(sync.fingerprints_G());
  }
  return out;
}

TEST(MicroGraphs, GradientsOfAPassByItselfAreThoseOfAMicroBatch) {
  const std::vector<at::Tensor> got = sums(true), want = sums(false);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(testing::same_bits(got[i], want[i])) << i;
}

}  // namespace
}  // namespace retort::train
