// Adapters trained by the step and our AdamW have the losses that peft's training of them has (../shared/data/finetune).
#include <gtest/gtest.h>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/hf_folder.h"
#include "models/peft_folder.h"
#include "tests/testing.h"
#include "train/step.h"

namespace retort::train {
namespace {

using formats::Json;

// Every row of ids, each predicting the next.
data::Batch batch_of(const at::Tensor& ids_BT) {
  const int64_t T = ids_BT.size(1);
  data::Batch batch{ids_BT, at::full_like(ids_BT, data::kIgnored), {}, {}, {}};
  batch.labels_BT.narrow(1, 0, T - 1).copy_(ids_BT.narrow(1, 1, T - 1));
  return batch;
}

void expect_losses(const Path& folder, const OptimizerOptions& options, const Json& facts) {
  models::PeftConfig config = models::read_peft_config(folder);
  if (folder.filename() == "llama-qlora") config.options.base = "nf4";
  const auto model = models::load_peft(folder, config,
                                       models::load_hf_folder(testing::test_data() / "models" / config.base));
  const data::Batch batch =
      batch_of(formats::SafetensorsFile(folder / "golden.safetensors").tensor("input_ids").clone());
  models::IdentityMap map;
  models::bind_working(model->parameters(), map, at::kFloat);
  const auto optimizer = make_optimizer(options, model->parameters());
  const auto objective = make_cross_entropy();
  const auto comm = comm::make_self_comm();
  TrainStep step({*model, map, *objective, *optimizer, *comm}, 1, /*clip_norm=*/0.0);
  std::vector<double> losses = facts.at("losses").get<std::vector<double>>();
  losses.push_back(facts.at("loss_after").get<double>());
  for (size_t s = 0; s < losses.size(); ++s)
    EXPECT_NEAR(step.run(static_cast<int64_t>(s), {batch}, options.lr).loss, losses[s], 1e-4)
        << folder.filename() << " " << s;
}

OptimizerOptions adamw(const Json& facts) {
  OptimizerOptions options;
  options.lr = facts["lr"].get<double>();
  options.beta1 = facts["betas"][0].get<double>();
  options.beta2 = facts["betas"][1].get<double>();
  options.eps = facts["eps"].get<double>();
  options.weight_decay = facts["weight_decay"].get<double>();
  options.decay_all = true;
  return options;
}

}  // namespace

// Of a pair on both sides of a tie peft trains each side by itself, so one folder has no losses.
TEST(PeftLosses, AreThoseOfEveryFolder) {
  RETORT_NEEDS_TEST_DATA();
  size_t compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::test_data() / "finetune")) {
    if (!std::filesystem::exists(entry.path() / models::kPeftConfig)) continue;
    const Json facts = formats::read_json(entry.path() / "golden.json");
    if (!facts.contains("losses")) continue;
    expect_losses(entry.path(), adamw(facts["adamw"]), facts);
    ++compared;
  }
  EXPECT_EQ(compared, 18u);
}

TEST(PeftLosses, AreThoseOfLoraPlus) {
  RETORT_NEEDS_TEST_DATA();
  const Path folder = testing::test_data() / "finetune" / "llama-lora";
  const Json facts = formats::read_json(folder / "golden.json"), &plus = facts["loraplus"];
  OptimizerOptions options = adamw(facts["adamw"]);
  options.lr = plus["lr_A"].get<double>();
  options.lora_plus = plus["lr_B"].get<double>() / options.lr;
  options.weight_decay = plus["weight_decay"].get<double>();
  expect_losses(folder, options, plus);
}

}  // namespace retort::train
