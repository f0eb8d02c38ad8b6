// A recipe on a device, and the same on the CPU.
#include <gtest/gtest.h>

#include "tests/fake_device/fake_device.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

// Every way in which a stage brings a model or a teacher to a device. Few steps: what rounds otherwise grows with them.
constexpr const char* kRecipe = R"(
run: { name: there, seed: 5, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 128, micro_batch: 2 }
model: { context: 40, layers: 1, width: 32, heads: 2, ffn_width: 32 }
train: { steps: 4, precision: fp32, checkpoint_every: 0, optimizer: { lr: 1.0e-3, eps: 1.0e-4 }, schedule: { warmup: 1 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.1 } }
  - { name: teacher, kind: train }
  - { name: bf16, kind: train, train: { precision: bf16 } }
  - { name: labels, kind: capture, model: { from: stage:teacher },
      capture: { kind: top_k, k: 20, precision: fp32 } }
  - { name: student, kind: train,
      distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl } ] } }
  - { name: cached, kind: train,
      distill: { teacher: { kind: cached, cache: [ stage:labels ] }, losses: [ { fn: top_k_ghost } ] } }
  - { name: qat, kind: train, model: { from: stage:teacher },
      quantize: { weights: { grid: lsq4 }, embedding: { grid: mxfp4 } },
      distill: { teacher: { kind: self, precision: fp32 }, losses: [ { fn: forward_kl } ] } }
  - { name: bridged, kind: train,
      distill: { teacher: { model: stage:teacher, bridge: bytes, precision: fp32 }, losses: [ { fn: forward_kl } ] } }
  - { name: tuned, kind: train, model: { from: stage:teacher }, adapters: { rank: 4, base: q8_0 } }
  - { name: judged, kind: evaluate, model: { from: stage:tuned }, evaluate: { tasks: [ bits_per_byte ] } }
  - { name: sample, kind: generate, model: { from: stage:teacher },
      generate: { prompt: "verse ", tokens: 8, temperature: 0, precision: fp32 } }
)";

class RecipeOnDevice : public RecipeRun {
 protected:
  // The result of every stage.
  std::map<std::string, formats::Json> results(const at::Device& device) {
    std::filesystem::remove_all(directory_ / "run");  // the same paths are in both runs' results
    const Recipe read = recipe(kRecipe);
    said_ += run(read, {.device = device});
    EXPECT_EQ(code_, ExitCode::kDone);
    std::map<std::string, formats::Json> out;
    for (const Stage& stage : read.stages) out[stage.name] = *read_result(directory_ / "run", stage.name);
    sample_ = read_text(in_run("sample/sample.txt"));
    return out;
  }
  std::string said_, sample_;
};

TEST_F(RecipeOnDevice, EveryStageIsTheCpus) {
  const testing::Threads one_thread(1);
  const testing::Watch watch;
  const auto there = results(testing::fake_device());
  const testing::Traffic traffic = watch.traffic();
  const std::string sample = sample_;
  EXPECT_GT(traffic.launches, 0);
  EXPECT_THAT(said_, ::testing::HasSubstr("grid mxfp4: values are made on the CPU"));
  const auto here = results(at::kCPU);
  EXPECT_EQ(sample, sample_);
  for (const auto& [stage, want] : here)
    for (const auto& [name, value] : want.items()) {
      const formats::Json& got = there.at(stage).at(name);
      const std::string what = stage + "." + name;
      if (name.ends_with("seconds") || name == "hash") continue;
      if (!value.is_number_float()) {
        EXPECT_EQ(got, value) << what;
        continue;
      }
      // Four updates of small steps; bf16 by its own rounding, a grid by a code that may be its neighbour.
      const double relative = stage == "bf16" || stage == "qat" ? 0x1p-6 : 1e-4;
      EXPECT_NEAR(got.get<double>(), value.get<double>(), relative * std::abs(value.get<double>()) + 1e-6)
          << what;
    }
}

}  // namespace
}  // namespace retort::recipes
