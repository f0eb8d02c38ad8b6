// Runs of the trainer on a device that stop and go on: grids, learned scales and adapters among what is saved.
#include <gtest/gtest.h>

#include "quantize/quantize_map.h"
#include "tests/data/corpus.h"
#include "tests/fake_device/adapted_training.h"
#include "tests/train/tiny_run.h"

namespace retort::testing {
namespace {

constexpr int64_t kSteps = 5;

// After validation `stop_after` it is told to stop, which it does a step later; 0: never.
train::TrainReport run_in(const Path& directory, const Training& training, int64_t stop_after = 0) {
  const Threads one_thread(1);
  static const TemporaryDirectory text;
  static const auto corpus = write_corpus(text / "shards", random_documents(4, 40, 60, 23));
  const auto model = training.model();
  const auto map = training.map(model->parameters());
  const auto objective = training.objective(*model, fake_device());
  models::bind_working(model->parameters(), *map, training.dtype);
  models::move_to(model->parameters(), fake_device());
  train::TrainOptions options;
  options.steps = kSteps, options.optimizer.lr = kLr;
  options.validate_every = 1, options.checkpoint_every = 2, options.keep_checkpoints = 1;
  const auto optimizer = train::make_optimizer(options.optimizer, model->parameters());
  const auto comm = comm::make_self_comm();
  const data::BatchStream stream(corpus, {.sequence = 12, .rows = 2, .seed = 3});
  std::atomic<bool> stop = false;
  const auto validate = [&](int64_t done) {
    stop = done == stop_after;
    return std::map<std::string, double>{{"figure", 1.0}};
  };
  Log quiet(stderr, "", true);
  train::TrainerParts parts{.step = {*model, *map, *objective, *optimizer, *comm},
                            .stream = stream,
                            .files = train::quick_files(),
                            .log = quiet,
                            .directory = directory,
                            .recipe = "run: { name: tiny }\n",
                            .facts = {{"model", "a tiny decoder"}},
                            .validate = validate,
                            .stop = &stop,
                            .ranges = train::quick_files()};
  const train::TrainReport report = train::Trainer(std::move(parts), options, 2).run();
  expect_working(model->parameters(), *map);
  return report;
}

// Whose run that stops and goes on leaves the bytes of one that did not stop.
void expect_resumed(const Training& training) {
  const TemporaryDirectory whole, parts;
  const train::TrainReport expected = run_in(whole.path(), training);
  const train::TrainReport stopped = run_in(parts.path(), training, 2);
  EXPECT_TRUE(stopped.preempted);
  EXPECT_EQ(stopped.steps, 3);
  const train::TrainReport report = run_in(parts.path(), training);
  EXPECT_EQ(report.steps, kSteps);
  EXPECT_EQ(report.final_loss, expected.final_loss);
  train::expect_same(whole.path(), parts.path());
}

// Made by AdamW's kernel, with learned scales, staged; from the first step, from before the stop and from after it.
TEST(ResumedOnDevice, ARunOnAGridDoesNotChangeABit) {
  struct Case {
    const char* grid;
    int64_t from;
    at::ScalarType dtype;
  };
  for (const Case& c : {Case{"q4_0", 0, at::kBFloat16},
                        {"lsq4", 1, at::kBFloat16},
                        {"lsq4", 4, at::kFloat},
                        {"mxfp4", 0, at::kFloat},
                        {"int8_row", 4, at::kBFloat16}}) {
    SCOPED_TRACE(fmt::format("{} from step {}, {}", c.grid, c.from, c10::toString(c.dtype)));
    Training training{.model = even_model, .dtype = c.dtype};
    training.map = [=](models::Parameters& parameters) {
      return std::make_unique<quantize::QuantizeMap>(
          quantize::QuantizeOptions{.weights = {c.grid}, .embedding = {"q8_0"}, .from_step = c.from},
          parameters);
    };
    expect_resumed(training);
  }
}

TEST(ResumedOnDevice, ARunOfAdaptersDoesNotChangeABit) {
  expect_resumed(adapters("f32", /*dora=*/true, at::kBFloat16));
  expect_resumed(adapters("nf4", /*dora=*/false));
}

}  // namespace
}  // namespace retort::testing
