// The plan of a device's memory against what steps take there, with and without graphs of micro-batches.
#include "plan/memory.h"
#include "tests/fake_device/distilled_training.h"
#include "tests/fake_device/memory.h"
#include "tests/plan/shapes.h"

namespace retort::testing {
namespace {

constexpr double kWithin = 0.08;  // as tests/plan/measured_memory_test.cpp

struct Case {
  std::string name;
  int64_t micro_batches = 2;
  bool teacher = false;  // of the same shape
  bool tied = false;
};

constexpr int64_t kRows = 4, kTokens = 64;

models::DecoderSpec spec_of(const Case& c) {
  return {.vocabulary = 512,
          .context = 128,
          .layers = 4,
          .width = 64,
          .heads = 4,
          .kv_heads = 4,
          .head_dim = 16,
          .ffn_width = 176,
          .tie_embeddings = c.tied};
}

std::unique_ptr<models::Model> model_of(const Case& c, uint64_t seed) {
  auto model = std::make_unique<models::Decoder>(spec_of(c));
  models::initialise(model->parameters(), "gpt2", 0.1, seed);
  return model;
}

// What is highest in three steps.
double measured(const Case& c, bool graphs) {
  Training training{.model = [&] { return model_of(c, 5); }};
  training.batch = [](int64_t number) { return train::tiny_batch(number, kRows, kTokens); };
  training.dtype = at::kBFloat16;
  if (c.teacher) training = distilled(training, [&] { return model_of(c, 6); }, {{.fn = "forward_kl"}});
  training.micro_batches = c.micro_batches;
  training.graphs = graphs;
  Memory::get().begin_peak();
  run(training, fake_device());
  return static_cast<double>(Memory::get().peak());
}

plan::Workload workload(const Case& c, bool graphs) {
  plan::Workload work = plan::workload_of(
      *plan::shape(spec_of(c)), {.rows = kRows, .sequence = kTokens, .micro_batches = c.micro_batches},
      {.bf16 = true});
  work.distills = c.teacher;
  if (c.teacher) work.teachers = {plan::teacher_of(*plan::shape(spec_of(c)), true)};
  work.on_device = true;
  work.graph = graphs;
  return work;
}

TEST(PlannedMemoryOnDevice, IsWhatStepsTake) {
  for (const Case& c :
       {Case{"two"}, Case{"one", 1}, Case{"four", 4}, Case{"teacher", 2, true}, Case{"tied", 2, false, true}})
    for (const bool graphs : {false, true}) {
      const plan::Moment planned = plan::peak(workload(c, graphs));
      const double real = measured(c, graphs), ratio = planned.memory.total() / real;
      std::string all = fmt::format("{}{}: planned {:.3f} MB at {}, measured {:.3f} MB: {:.3f}", c.name,
                                    graphs ? " with a graph" : "", planned.memory.total() / 1e6, planned.name,
                                    real / 1e6, ratio);
      RecordProperty(fmt::format("ratio_{}_{}", c.name, graphs), all);
      for (const plan::Moment& one : plan::moments(workload(c, graphs)))
        all += fmt::format("\n{:<12}{:.3f} MB", one.name, one.memory.total() / 1e6);
      for (const auto& [name, bytes] : planned.memory.parts())
        all += fmt::format("\n  {:<12}{:.3f} MB", name, bytes / 1e6);
      EXPECT_NEAR(ratio, 1.0, kWithin) << all;
      EXPECT_EQ(planned.memory.graph > 0, graphs) << all;
    }
}

}  // namespace
}  // namespace retort::testing
