// Models, maps and adapters on a device.
#include <gtest/gtest.h>

#include "models/frozen_codes.h"
#include "models/moved_codes.h"
#include "quantize/quantize_map.h"
#include "tests/fake_device/adapted_training.h"
#include "tests/fake_device/grid_training.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

// The loss, and the gradient of every parameter.
std::map<std::string, at::Tensor> gradients_of(const models::DecoderSpec& spec, const at::Device& device) {
  const auto model = random_model(spec);
  models::move_to(model->parameters(), device);
  const at::Tensor tokens = random_tokens(2, 13, spec.vocabulary).to(device);
  const at::Tensor loss = next_token_loss(*model, tokens);
  loss.backward();
  std::map<std::string, at::Tensor> out{{"loss", loss.detach().cpu()}};
  for (const models::Parameter& p : model->parameters().unique())
    if (p.working.grad().defined()) out[p.name] = p.working.grad().cpu();
  return out;
}

TEST(ModelsOnDevice, EveryFamilyIsTheCpus) {
  for (const models::DecoderSpec& spec : tiny_families()) {
    SCOPED_TRACE(spec.family);
    const auto got = gradients_of(spec, fake_device()), want = gradients_of(spec, at::kCPU);
    EXPECT_EQ(got.size(), want.size());
    double largest = 0;  // a key's bias has a gradient of rounding errors alone
    for (const auto& [name, x] : want) largest = std::max(largest, x.abs().max().item<double>());
    for (const auto& [name, x] : want)
      EXPECT_LE((got.at(name) - x).abs().max().item<double>(), kChain * largest) << name;
  }
}

// Both branches of every layer, also the last one's: no addition beside the norms.
TEST(ModelsOnDevice, RmsNormsAddToTheResidualStream) {
  models::DecoderSpec spec = small_llama();
  spec.width = 64, spec.head_dim = 16;  // attention's flash kernels, which add nothing
  const auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "gpt2", 0.1, 5);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kBFloat16);
  models::move_to(model->parameters(), fake_device());
  const at::Tensor tokens = random_tokens(2, 13, model->vocabulary()).to(fake_device());
  const Watch watch;
  model->hidden({tokens});
  for (const auto& [name, times] : watch.traffic().operators)
    EXPECT_FALSE(name.starts_with("aten::add")) << name;
}

TEST(ModelsOnDevice, MovingKeepsWhatIsShared) {
  const auto model = small_model();
  models::Parameters& parameters = model->parameters();
  models::IdentityMap identity;
  parameters.at("layers.0.ffn.up.weight").freeze();
  models::bind_working(parameters, identity, at::kBFloat16);
  models::move_to(parameters, fake_device());
  for (const models::Parameter& p : parameters.unique()) {
    EXPECT_EQ(p.working.device(), fake_device()) << p.name;
    EXPECT_EQ(p.working.is_alias_of(p.master), p.working.scalar_type() == at::kFloat) << p.name;
    EXPECT_EQ(p.working.requires_grad(), !p.frozen) << p.name;
    EXPECT_EQ(p.master.is_cpu(), p.frozen) << p.name;
  }
  EXPECT_EQ(models::device_of(parameters), fake_device());
}

TEST(ModelsOnDevice, TrainingForAGridIsTheCpus) {
  for (const std::string& grid : quantize::grids().names()) {
    SCOPED_TRACE(grid);
    const Training training = on_grid(grid);
    // The first step: a weight that is off by a rounding may have another code in the next.
    const train::StepStats got = run(training, fake_device(), 2).steps[0],
                           want = run(training, at::kCPU, 1).steps[0];
    EXPECT_NEAR(got.loss, want.loss, kChain * want.loss);
    EXPECT_NEAR(got.gradient_norm, want.gradient_norm, kChain * want.gradient_norm);
  }
}

// Codes too are where the model is: a step over them waits for the device once.
TEST(ModelsOnDevice, AdaptersAreTheCpus) {
  for (const std::string& base : models::frozen_code_names())
    for (const bool dora : {false, true}) {
      SCOPED_TRACE(fmt::format("{} {}", base, dora));
      const Training training = adapters(base, dora);
      const Ran got = run(training, fake_device());
      expect_close(got, run(training, at::kCPU), kChain);
      EXPECT_EQ(got.all_traffic.back().host_reads(), 1);
      EXPECT_EQ(got.all_traffic.back().uploads_waited, 0);
    }
}

TEST(ModelsOnDevice, AdaptersInBf16AreAsGoodAsTheCpus) {
  for (const std::string& base : models::frozen_code_names()) {
    SCOPED_TRACE(base);
    const bool dora = base == "f32" || base == "nf4";
    expect_as_good_as_the_cpus([&](at::ScalarType dtype) { return adapters(base, dora, dtype); });
  }
}

// Their values are the host's, and models that share them share them there.
TEST(ModelsOnDevice, CodesMoveOnceAndAreTheCpusBits) {
  for (const char* base : {"bf16", "q8_0", "q4_0", "nf4"}) {
    SCOPED_TRACE(base);
    const auto model = adapted(base), copy = models::same_shape(*model);
    models::Parameter& p = model->parameters().at("layers.0.ffn.up.weight");
    const std::shared_ptr<const models::Codes> host = p.codes;
    const at::Tensor want = host->values();
    models::move_to(model->parameters(), fake_device());
    models::move_working_to(copy->parameters(), fake_device());
    EXPECT_NE(p.codes, host);
    EXPECT_EQ(copy->parameters().at(p.name).codes, p.codes);
    EXPECT_EQ(p.codes->bytes(), host->bytes());
    EXPECT_TRUE(same_bits(p.values(), want));
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Watch watch;
      const at::Tensor values = models::values_on(*p.codes, fake_device(), dtype);
      EXPECT_EQ(watch.traffic().to_device + watch.traffic().host_reads(), 0);
      EXPECT_EQ(values.device(), fake_device());
      EXPECT_TRUE(same_bits(values.cpu(), want.to(dtype)));
    }
  }
}

}  // namespace
}  // namespace retort::testing
