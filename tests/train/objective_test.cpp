// Cross-entropy as an objective, and with the step and AdamW the losses of LibTorch's own training loop.
#include "train/objective.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/hf_folder.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/step.h"

namespace retort::train {

TEST(CrossEntropy, IsTheSumOverValidLabels) {
  const at::NoGradGuard no_grad;
  TinyModel tiny;
  const data::Batch batch = tiny_batch(3);
  const LossSum loss = (*make_cross_entropy())(tiny.model, batch);
  const at::Tensor h_BTD = tiny.model.hidden({batch.tokens_BT, {}, {}});
  const at::Tensor logits_NV =
      at::matmul(h_BTD, tiny.model.head().weight_VD.t()).flatten(0, 1).to(at::kDouble);
  const at::Tensor labels_N = batch.labels_BT.flatten();
  double expected = 0;
  for (int64_t i = 0; i < labels_N.numel(); ++i)
    if (const int64_t label = labels_N[i].item<int64_t>(); label != data::kIgnored)
      expected -= at::log_softmax(logits_NV[i], 0)[label].item<double>();
  EXPECT_NEAR(loss.sum.item<double>(), expected, 1e-5 * expected);
  ASSERT_EQ(loss.parts.size(), make_cross_entropy()->part_names().size());
  EXPECT_TRUE(testing::same_bits(loss.parts[0], loss.sum));
}

// Ten steps of AdamW on one batch, as the published tiny models were trained.
TEST(CrossEntropy, TrainsLikeTransformersDoes) {
  RETORT_NEEDS_TEST_DATA();
  for (const std::string name : {"llama", "llama3-tied", "gpt2"}) {
    const Path folder = testing::test_data() / "models" / "tiny" / name;
    const formats::Json golden = formats::read_json(folder / "golden.json");
    const formats::Json& adamw = golden["adamw"];
    const auto model = models::load_hf_folder(folder);
    const at::Tensor ids_BT =
        formats::SafetensorsFile(folder / "golden.safetensors").tensor("input_ids").clone();
    const int64_t T = ids_BT.size(1);
    data::Batch batch{ids_BT, at::full_like(ids_BT, data::kIgnored), {}, {}, {}};
    batch.labels_BT.narrow(1, 0, T - 1).copy_(ids_BT.narrow(1, 1, T - 1));

    models::IdentityMap map;
    OptimizerOptions options;
    options.lr = adamw["lr"].get<double>();
    options.beta1 = adamw["betas"][0].get<double>();
    options.beta2 = adamw["betas"][1].get<double>();
    options.eps = adamw["eps"].get<double>();
    options.weight_decay = adamw["weight_decay"].get<double>();
    options.decay_all = adamw["weight_decay_on"] == "all parameters";
    const auto optimizer = make_optimizer(options, model->parameters());
    const auto objective = make_cross_entropy();
    const auto comm = comm::make_self_comm();
    TrainStep step({*model, map, *objective, *optimizer, *comm}, 1, /*clip_norm=*/0.0);
    const std::vector<double> losses = golden["losses"].get<std::vector<double>>();
    ASSERT_EQ(losses.size(), 10u);
    for (size_t s = 0; s < losses.size(); ++s)
      EXPECT_NEAR(step.run(static_cast<int64_t>(s), {batch}, options.lr).loss, losses[s], 1e-4)
          << name << " " << s;
  }
}

}  // namespace retort::train
