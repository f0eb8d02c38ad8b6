// A recipe on a device, and the same on the CPU.
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>

#include "quantize/device_fit.h"
#include "quantize/grid.h"
#include "recipes/on_ranks.h"
#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/memory.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

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

int64_t times(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++count;
  return count;
}

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
  EXPECT_EQ(times(said_, "values are made on the CPU"), 1) << said_;
  EXPECT_EQ(times(said_, "grid mxfp4: values are made on the CPU"), 1) << said_;
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

// A stage for each grid of which a device has no kernel says so, in however many steps, and so does one of two such grids in one
// line; one of a grid that has a kernel does not.
TEST_F(RecipeOnDevice, EveryGridWithoutAKernelSaysSoOnce) {
  const testing::Threads one_thread(1);
  std::vector<std::string> staged;
  for (const quantize::Grid& grid : quantize::grids())
    if (!quantize::works_on_device(grid)) staged.push_back(grid.name);
  ASSERT_GE(staged.size(), 4u);
  std::string text = R"(
run: { name: there, seed: 5, threads: 1 }
data: { train: stage:text, sequence: 16, batch_tokens: 32, micro_batch: 2 }
model: { context: 16, layers: 1, width: 256, heads: 1, ffn_width: 256 }
train: { steps: 2, precision: fp32, checkpoint_every: 0, schedule: { warmup: 1 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.1 } }
  - { name: plain, kind: train, quantize: { weights: { grid: q8_0 } } }
)";
  for (const std::string& grid : staged)
    text +=
        fmt::format("  - {{ name: of_{0}, kind: train, quantize: {{ weights: {{ grid: {0} }} }} }}\n", grid);
  text += fmt::format(
      "  - {{ name: both, kind: train, quantize: {{ weights: {{ grid: {} }}, embedding: {{ grid: {} }} }} "
      "}}\n",
      staged[0], staged[1]);
  const std::string said = run(recipe(text), {.device = testing::fake_device()});
  EXPECT_EQ(code_, ExitCode::kDone);
  for (const std::string& grid : staged)
    EXPECT_EQ(times(said, fmt::format("grid {}: values are made on the CPU", grid)), 1) << said;
  EXPECT_EQ(times(said, "values are made on the CPU"), static_cast<int64_t>(staged.size()) + 1) << said;
}

// Whatever the device has too little memory for, the error says what was done, what holds memory and what is free.
TEST_F(RecipeOnDevice, RefusedMemoryIsNamedWhereverItHappens) {
  const testing::Threads one_thread(1);
  const std::string start = R"(
run: { name: there, seed: 5, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 128, micro_batch: 2 }
model: { context: 40, layers: 1, width: 32, heads: 2, ffn_width: 32 }
train: { steps: 2, precision: fp32, checkpoint_every: 0, schedule: { warmup: 1 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.1 } }
  - { name: teacher, kind: train }
)";
  run(recipe(start), {.device = testing::fake_device()});
  ASSERT_EQ(code_, ExitCode::kDone);
  // What such a stage says with ever more memory, until there is enough.
  const auto refusals = [&](const std::string& stage, size_t parts) {
    std::string said;
    code_ = ExitCode::kUsage;
    for (size_t more = 1 << 10; code_ != ExitCode::kDone && more < (size_t{1} << 28); more += more / parts) {
      testing::Memory::get().limit(more);
      const std::string error = error_of(recipe(start + stage), {.device = testing::fake_device()});
      testing::Memory::get().unlimit();
      if (code_ == ExitCode::kDone) break;
      EXPECT_EQ(code_, ExitCode::kUsage) << error;
      EXPECT_THAT(error, ::testing::ContainsRegex("out of memory .*(weights|working) [0-9.]+ kB.* are free"))
          << error;
      said += error + "\n";
    }
    EXPECT_EQ(code_, ExitCode::kDone);
    return said;
  };
  const std::string training = refusals("  - { name: again, kind: train }\n", 2);
  EXPECT_THAT(training, HasSubstr("bringing the model to"));
  EXPECT_THAT(training, HasSubstr("training: out of memory"));  // its steps are run_test.cpp's
  const std::string judging = refusals(
      "  - { name: judged, kind: evaluate, model: { from: stage:teacher }, evaluate: { tasks: [ "
      "bits_per_byte ] } }\n",
      2);
  EXPECT_THAT(judging, HasSubstr("bringing the model to"));
  EXPECT_THAT(judging, HasSubstr("evaluation: out of memory"));
  const std::string sampling = refusals(
      "  - { name: sample, kind: generate, model: { from: stage:teacher }, generate: { prompt: \"verse \", "
      "tokens: 8, "
      "temperature: 0, precision: fp32 } }\n",
      24);
  EXPECT_THAT(sampling, HasSubstr("bringing the model to"));
  EXPECT_THAT(sampling, HasSubstr("generation: out of memory"));
}

// What asks for no device by name would else be on the first, whichever the rank's is.
TEST_F(RecipeOnDevice, ARanksThreadIsOnItsDeviceThroughout) {
  const Recipe two = recipe(R"(
run: { name: there, seed: 5, threads: 2 }
data: { train: stage:text, sequence: 16, batch_tokens: 32, micro_batch: 1 }
model: { context: 16, layers: 1, width: 32, heads: 1, ffn_width: 32 }
train: { steps: 2, precision: fp32, checkpoint_every: 0, schedule: { warmup: 1 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.1 } }
  - { name: plain, kind: train, parallel: { ranks: 2, transport: host } }
)");
  const auto comm = comm::make_self_comm();
  Log log(stderr, "", true);
  StageContext context{.recipe = two,
                       .stage = *two.find("plain"),
                       .run = {},
                       .directory = {},
                       .identity = {},
                       .comm = *comm,
                       .threads = 2,
                       .tuning = [] { return kernels::CpuTuning(); },
                       .device = testing::fake_device(1),
                       .files = local_files(),
                       .log = log,
                       .stop = stop_,
                       .print = {}};
  on_ranks(context, [](StageContext& mine, comm::Comm& group, Log&) -> StageOutcome {
    const c10::impl::VirtualGuardImpl guard(mine.device.type());
    EXPECT_EQ(mine.device, testing::fake_device(1 + group.rank()));
    EXPECT_EQ(guard.getDevice(), mine.device);
    return {};
  });
}

}  // namespace
}  // namespace retort::recipes
