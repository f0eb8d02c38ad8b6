// Whole runs of the trainer, and teachers that are asked in other ways, on a device.
#include <gtest/gtest.h>

#include "core/digest.h"
#include "distill/capture.h"
#include "distill/objectives.h"
#include "tests/data/corpus.h"
#include "tests/fake_device/training.h"
#include "tests/train/tiny_run.h"

namespace retort::train {
namespace {

using testing::fake_device, testing::TemporaryDirectory, testing::Training;

TinyRun there() {
  TinyRun run;
  run.device = fake_device();
  run.options.steps = 10;
  run.options.checkpoint_every = 4;
  return run;
}

TEST(RunOnDevice, StoppingAndResumingDoesNotChangeABit) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const TemporaryDirectory whole_run, parts_run;
    TinyRun whole = there(), first = there(), second = there();
    whole.measured = first.measured = dtype;  // a run goes on in the precision of its checkpoint
    for (TinyRun* one : {&whole, &first, &second}) one->frozen = {"layers.0.ffn.up.weight"};
    const TrainReport expected = whole(whole_run.path());
    first.before_step = stop_at(5, 0);
    EXPECT_TRUE(first(parts_run.path()).preempted);
    const TrainReport report = second(parts_run.path());
    EXPECT_EQ(report.final_loss, expected.final_loss);
    expect_same(whole_run.path(), parts_run.path());
  }
}

// A checkpoint does not know where it was made.
TEST(RunOnDevice, ARunGoesOnElsewhere) {
  const TemporaryDirectory moved, stayed;
  TinyRun first = there(), second = there(), whole = there();
  first.before_step = stop_at(5, 0);
  first(moved.path());
  second.device = whole.device = at::kCPU;
  const TrainReport report = second(moved.path()), expected = whole(stayed.path());
  EXPECT_EQ(report.steps, expected.steps);
  EXPECT_NEAR(report.final_loss, expected.final_loss, 1e-4 * expected.final_loss);
}

TEST(RunOnDevice, TheCachesOfADeviceTeachAsThoseOfTheCpu) {
  const TemporaryDirectory directory;
  const auto corpus = testing::write_corpus(directory / "text", testing::random_documents(4, 12, 60, 31));
  const auto capture = [&](const std::string& kind, const at::Device& device) {
    const auto teacher = testing::small_model(9);
    models::move_working_to(teacher->parameters(), device);
    const distill::CacheFacts facts{.kind = kind,
                                    .size = 6,
                                    .vocabulary = teacher->tokens(),
                                    .tokenizer = corpus->tokenizer_fingerprint(),
                                    .corpus = hex(corpus->digest()),
                                    .tokens = corpus->size(),
                                    .block_tokens = 120,
                                    .teacher = "w",
                                    .teacher_name = "a teacher",
                                    .window = 12,
                                    .seed = 3};
    const Path cache = directory / (kind + (device.is_cpu() ? "-cpu" : "-device"));
    Log quiet(stderr, "", true);
    const std::atomic<bool> stop = false;
    distill::capture(*teacher, *corpus, facts, 2, cache, *comm::make_self_comm(), local_files(), quiet, stop);
    return std::make_shared<const distill::TeacherCache>(cache);
  };
  const data::BatchStream stream(corpus, {.sequence = 12, .rows = 2, .seed = 3});
  for (const auto& [kind, loss] : {std::pair{"top_k", "top_k_ghost"}, {"sampled", "sampled"}}) {
    SCOPED_TRACE(kind);
    Training training{.model = [] { return testing::small_model(); }};
    training.batch = [&](int64_t number) { return stream.batch(number); };
    training.objective = [&, kind = kind, loss = loss](const models::Model& student,
                                                       const at::Device& device) {
      distill::ObjectiveInput input{.model = student};
      input.teacher = distill::make_cached_teacher({capture(kind, device)});
      input.losses = {{.fn = "cross_entropy"}, {.fn = loss}};
      return distill::objectives().at("distillation").make(std::move(input));
    };
    // What a cache keeps is f16 of what the teacher says, or draws from it.
    expect_close(run(training, fake_device()), run(training, at::kCPU),
                 std::string(kind) == "top_k" ? 0x1p-10 : testing::kChain);
  }
}

TEST(RunOnDevice, AMixtureOfTeachersIsTheCpus) {
  Training training{.model = [] { return testing::small_model(); }};
  training.objective = [](const models::Model& student, const at::Device& device) {
    std::vector<distill::Share> shares;
    for (const uint64_t seed : {9, 10}) {
      auto teacher = testing::small_model(seed);
      models::move_working_to(teacher->parameters(), device);
      shares.push_back({distill::make_live_teacher(std::move(teacher)), {static_cast<double>(seed)}});
    }
    distill::ObjectiveInput input{.model = student};
    input.teacher = distill::make_mixed_teacher(std::move(shares));
    input.losses = {{.fn = "forward_kl"}};
    return distill::objectives().at("distillation").make(std::move(input));
  };
  expect_the_cpus(training);
}

}  // namespace
}  // namespace retort::train
