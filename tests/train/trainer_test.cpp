#include "train/trainer.h"

#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "comm/together.h"
#include "core/error.h"
#include "tests/train/tiny_run.h"

namespace retort::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

struct Killed {};  // what a test throws where a process would be killed

}  // namespace

TEST(Trainer, RanksThatBeginApartAreRefused) {
  const auto error_of = [](TinyRun run) {
    const TemporaryDirectory directory;
    run.ranks = 2;
    int64_t steps = 0;
    run.before_step = [&](int, int64_t, std::atomic<bool>&) { ++steps; };
    try {
      run(directory / "run");
    } catch (const comm::SharedError& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_EQ(steps, 0);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  TinyRun weights, text, recipe;
  weights.before_run = [](int rank, TrainerParts& parts) {
    const at::NoGradGuard no_grad;
    if (rank == 1) parts.step.model.parameters().unique().back().master.view(-1)[-1] += 1e-6;
  };
  text.odd_text_rank = 1;
  recipe.before_run = [](int rank, TrainerParts& parts) { parts.recipe += std::to_string(rank); };
  EXPECT_THAT(error_of(weights), HasSubstr("rank 1: differs from rank 0: the weights is"));
  EXPECT_THAT(error_of(text), HasSubstr("rank 1: differs from rank 0: the data is"));
  EXPECT_THAT(error_of(recipe), HasSubstr("rank 1: differs from rank 0: the stage's recipe is"));
}

// From the start to the end, in validations and in saves, at the same bytes.
TEST(Trainer, DividedParametersAreNeverWhole) {
  TemporaryDirectory whole, divided;
  TinyRun plain, run;
  plain.ranks = run.ranks = 2;
  plain.figures = run.figures = {{5, 2.0}, {10, 1.0}, {15, 3.0}, {20, 4.0}};
  plain(whole.path());
  run.divided = Divided::kParameters;
  std::atomic<int64_t> validations = 0;
  run.before_run = [&](int, TrainerParts& parts) {
    Owners& owners = *parts.step.owners;
    owners.divide_weights();
    parts.validate = [&, inner = parts.validate](int64_t done) {
      EXPECT_EQ(owners.gathered()->bytes(), 0);
      for (const models::Parameter& p : parts.step.model.parameters().unique())
        EXPECT_EQ(p.master.data_ptr(), owners.gathered()->rows(p).data_ptr()) << p.name;
      ++validations;
      return inner(done);
    };
  };
  run(divided.path());
  EXPECT_EQ(validations, 2 * 4);
  expect_same(whole.path(), divided.path());
}

TEST(Trainer, TrainsValidatesAndSaves) {
  TemporaryDirectory run;
  TinyRun whole;
  whole.options.checkpoint_every = 8;
  whole.options.keep_checkpoints = 2;
  const TrainReport report = whole(run.path());
  EXPECT_EQ(report.steps, 20);
  EXPECT_EQ(report.tokens, 20 * 2 * 2 * 12);
  EXPECT_FALSE(report.preempted);
  EXPECT_GT(report.seconds, 0);
  EXPECT_THAT(whole.validated, ElementsAre(5, 10, 15, 20));
  EXPECT_THAT(list_checkpoints(run / "checkpoints"),
              ElementsAre(run / "checkpoints/step_00000020", run / "checkpoints/step_00000016"));
  const LoadedCheckpoint last = load_checkpoint(run / "checkpoints/step_00000020");
  EXPECT_EQ(last.recipe, "run: { name: tiny }\n");
  EXPECT_EQ(last.extra["model"], "a tiny decoder");
  EXPECT_EQ(last.extra["train"]["tokens"], report.tokens);
  EXPECT_EQ(formats::read_json(run / "progress.json")["step"], 20);
}

TEST(Trainer, Fault26StoppingAndResumingDoesNotChangeABit) {
  for (const int ranks : {1, 2, 4}) {
    TemporaryDirectory whole_run, parts_run;
    TinyRun whole, first, second;
    whole.ranks = first.ranks = second.ranks = ranks;
    whole.noise = first.noise = second.noise = {.alpha = 5, .seed = 3};
    const TrainReport expected = whole(whole_run.path());
    first.before_step = stop_at(9, ranks - 1);  // the flag of the last rank only
    const TrainReport stopped = first(parts_run.path());
    EXPECT_TRUE(stopped.preempted);
    EXPECT_EQ(stopped.steps, 10);
    EXPECT_THAT(first.validated, ElementsAre(5));  // a stop does not wait for the one at 10
    const TrainReport report = second(parts_run.path());
    EXPECT_THAT(second.validated, ElementsAre(10, 15, 20));
    EXPECT_EQ(report.tokens, expected.tokens);
    EXPECT_EQ(report.final_loss, expected.final_loss);
    EXPECT_GT(report.seconds, stopped.seconds);
    expect_same(whole_run.path(), parts_run.path());
  }
}

// A run that continues moves its map to the last update that was done, so that a validation which was due,
// and whatever follows a run that is complete, see the map of that update.
TEST(Trainer, MovesTheWeightMapToEveryStep) {
  TemporaryDirectory run;
  TinyRun first, second, again;
  for (TinyRun* each : {&first, &second, &again}) each->options.steps = 4;
  first.before_step = stop_at(1, 0);
  first(run.path());
  second(run.path());
  again(run.path());
  EXPECT_THAT(first.map_steps, ElementsAre(0, 1));
  EXPECT_THAT(second.map_steps, ElementsAre(1, 2, 3));
  EXPECT_THAT(again.map_steps, ElementsAre(3));
}

// Frozen weights are in checkpoints, hold no optimizer state, and a run without them does not continue one
// with.
TEST(Trainer, FrozenParametersResume) {
  const std::vector<std::string> frozen = {"lm_head.weight", "layers.1.ffn.up.weight"};  // by their aliases
  TemporaryDirectory whole_run, parts_run;
  TinyRun whole, first, second, other;
  whole.frozen = first.frozen = second.frozen = frozen;
  whole(whole_run.path());
  first.before_step = stop_at(9, 0);
  first(parts_run.path());
  EXPECT_THROW(other(parts_run.path()), CheckpointError);
  second.ranks = 2;
  second.micro_batches = 1;
  second(parts_run.path());
  expect_same(whole_run.path(), parts_run.path());

  const LoadedCheckpoint last = load_checkpoint(parts_run / "checkpoints/step_00000020");
  const TinyModel start;
  for (const models::Parameter& p : start.model.parameters().unique()) {
    const bool still = p.name == "embed.weight" || p.name == "layers.0.ffn.up.weight";
    EXPECT_EQ(testing::same_bits(last.weights.at(p.name), p.master), still) << p.name;
    EXPECT_EQ(last.optimizer.contains("adamw.m." + p.name), !still) << p.name;
    EXPECT_EQ(last.optimizer.contains("adamw.v." + p.name), !still) << p.name;
  }
}

// What an objective learns is in checkpoints after the model, with its optimizer state, and is continued.
TEST(Trainer, WhatTheObjectiveLearnsResumes) {
  TemporaryDirectory whole_run, parts_run;
  TinyRun whole, first, second, without;
  whole.learns = first.learns = second.learns = true;
  whole(whole_run.path());
  first.before_step = stop_at(9, 0);
  first(parts_run.path());
  EXPECT_THROW(without(parts_run.path()), CheckpointError);
  second.ranks = 2;
  second.micro_batches = 1;
  second(parts_run.path());
  expect_same(whole_run.path(), parts_run.path());

  const LoadedCheckpoint last = load_checkpoint(parts_run / "checkpoints/step_00000020");
  EXPECT_LT(last.learned.at("objective.scale").item<float>(), 0.99f);
  EXPECT_TRUE(last.optimizer.contains("adamw.m.objective.scale"));
  EXPECT_EQ(last.weights.size(), TinyModel().model.parameters().unique().size());
}

TEST(Trainer, StepsWithoutLabelsAreNoUpdates) {
  for (const int ranks : {1, 2}) {
    TemporaryDirectory whole_run, parts_run;
    TinyRun whole, first, second;
    for (TinyRun* run : {&whole, &first, &second}) {
      run->ranks = ranks;
      run->micro_batches = 2 / ranks;
      run->options.log_every = 1;
      run->unlabelled = true;
    }
    const TrainReport report = whole(whole_run.path());
    EXPECT_EQ(report.unlabelled, 4);
    EXPECT_THAT(whole.log, HasSubstr("step 3: its batch has no labels on any rank"));
    EXPECT_THAT(whole.log, HasSubstr("4 of 20 steps (20 %) had no labels"));
    const LoadedCheckpoint last = load_latest_checkpoint(whole_run / "checkpoints", *CapturedLog()).value();
    EXPECT_EQ(last.optimizer.at("adamw.step").item<int64_t>(), 16);
    EXPECT_EQ(last.extra["train"]["unlabelled"], 4);
    int without = 0;
    std::istringstream lines(read_text(whole_run / "metrics.jsonl"));
    for (std::string text; std::getline(lines, text);) {
      const formats::Json line = formats::parse_json(text, "metrics");
      if (line.contains("validation")) continue;
      EXPECT_EQ(line.contains("loss"), line.at("labels") != 0) << text;
      EXPECT_EQ(line.contains("gradient_norm"), line.at("labels") != 0) << text;
      without += line.at("labels") == 0;
    }
    EXPECT_EQ(without, 4);
    first.before_step = stop_at(9, 0);
    EXPECT_EQ(first(parts_run.path()).unlabelled, 2);
    EXPECT_EQ(second(parts_run.path()).unlabelled, 4);
    expect_same(whole_run.path(), parts_run.path());
  }
}

TEST(Trainer, AKillBetweenCheckpointsDoesNotChangeABit) {
  TemporaryDirectory whole_run, killed_run;
  TinyRun whole, killed, resumed;
  whole.options.checkpoint_every = killed.options.checkpoint_every = resumed.options.checkpoint_every = 5;
  whole(whole_run.path());
  killed.before_step = [](int, int64_t step, std::atomic<bool>&) {
    if (step == 13) throw Killed{};
  };
  EXPECT_THROW(killed(killed_run.path()), Killed);
  resumed(killed_run.path());
  EXPECT_THAT(resumed.validated, ElementsAre(15, 20));
  expect_same(whole_run.path(), killed_run.path());
}

TEST(Trainer, Fault33OneSeedTwiceOnFourRanksGivesTheSameBytes) {
  TemporaryDirectory one, other;
  for (const Path& at : {one.path(), other.path()}) {
    TinyRun run;
    run.ranks = 4;
    run.options.log_every = 1;
    run(at);
  }
  expect_same(one.path(), other.path());
}

TEST(Trainer, Fault29OneSeedGivesTheSameBytesHoweverTheBatchIsSplit) {
  TemporaryDirectory one_run;
  TinyRun one;
  one.micro_batches = 4;
  one(one_run.path());
  for (const int ranks : {1, 2, 4}) {
    TemporaryDirectory run;
    TinyRun split;
    split.ranks = ranks;
    split.micro_batches = 4 / ranks;
    split(run.path());
    expect_same(one_run.path(), run.path());
  }
}

TEST(Trainer, AnyRankCountContinuesACheckpoint) {
  TemporaryDirectory whole_run, parts_run;
  TinyRun whole, first, second;
  whole(whole_run.path());
  first.before_step = stop_at(9, 0);
  first(parts_run.path());
  second.ranks = 2;
  second.micro_batches = 1;
  second(parts_run.path());
  expect_same(whole_run.path(), parts_run.path());
}

TEST(Trainer, AMixtureIsContinuedWhereEachSourceWas) {
  TemporaryDirectory whole_run, parts_run;
  TinyRun whole, first, second, heavier;
  whole.second_weight = first.second_weight = second.second_weight = 0.25;
  whole(whole_run.path());
  first.before_step = stop_at(9, 0);
  first(parts_run.path());
  heavier.second_weight = 0.5;
  EXPECT_THROW(heavier(parts_run.path()), ConfigError);  // would skip samples of one and repeat the other's
  second.ranks = 2;
  second.micro_batches = 1;
  second(parts_run.path());
  expect_same(whole_run.path(), parts_run.path());

  const LoadedCheckpoint last = load_checkpoint(parts_run / "checkpoints/step_00000020");
  const formats::Json& sources = last.extra["train"]["sources"];
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0]["name"], "first");
  EXPECT_EQ(sources[0]["samples"], 64);  // 80 rows, 4 to 1
  EXPECT_EQ(sources[1]["samples"], 16);
  EXPECT_GT(sources[1]["epochs"], 1.0);
  const std::string metrics = read_text(parts_run / "metrics.jsonl");
  EXPECT_NE(metrics.find(fmt::format("\"second\":{}", sources[1]["epochs"].dump())), std::string::npos)
      << metrics;
}

TEST(Trainer, OtherTextIsNotContinued) {
  TemporaryDirectory run;
  TinyRun first, text, documents, limited;
  first.before_step = stop_at(9, 0);
  first(run.path());
  text.other_text = documents.isolate_documents = true;
  limited.limit = 600;
  for (TinyRun* other : {&text, &documents, &limited}) EXPECT_THROW((*other)(run.path()), ConfigError);
}

TEST(Trainer, APrecisionThatWasMeasuredStays) {
  TemporaryDirectory whole_run, parts_run;
  TinyRun whole, first, second;
  whole.measured = first.measured = at::kBFloat16;
  whole(whole_run.path());
  first.before_step = stop_at(9, 0);
  first(parts_run.path());
  second(parts_run.path());
  EXPECT_NE(second.log.find("precision bf16"), std::string::npos) << second.log;
  expect_same(whole_run.path(), parts_run.path());
}

TEST(Trainer, AFinishedRunReturnsAtOnce) {
  TemporaryDirectory run;
  TinyRun first, again;
  const TrainReport expected = first(run.path());
  const auto before = contents(run.path());
  // A kill within the last save: before LATEST was written, and while an older checkpoint was being removed.
  std::ofstream(run / "checkpoints/LATEST") << "step_00000001\n";
  std::filesystem::create_directory(run / "checkpoints/step_00000001");
  std::ofstream(run / "checkpoints/step_00000001/weights.safetensors") << "half";
  again.options.keep_checkpoints = 1;
  again.before_step = [](int, int64_t step, std::atomic<bool>&) { ADD_FAILURE() << "trained step " << step; };
  const TrainReport report = again(run.path());
  EXPECT_EQ(report.steps, 20);
  EXPECT_EQ(report.tokens, expected.tokens);
  EXPECT_EQ(report.final_loss, expected.final_loss);
  EXPECT_EQ(report.seconds, expected.seconds);
  EXPECT_TRUE(again.validated.empty());
  EXPECT_EQ(contents(run.path()), before);
}

TEST(Trainer, SkippedUpdatesAreJournaledAndEndTheRunWhenTheyGoOn) {
  TemporaryDirectory run;
  TinyRun poisoned;
  poisoned.ranks = 2;
  poisoned.poison_from = 5, poisoned.poison_until = 7;
  const TrainReport report = poisoned(run.path());
  EXPECT_EQ(report.steps, 20);
  const LoadedCheckpoint last = load_checkpoint(run / "checkpoints/step_00000020");
  EXPECT_EQ(last.extra["train"]["skipped"].get<std::vector<int64_t>>(), (std::vector<int64_t>{5, 6}));
  EXPECT_NE(poisoned.log.find("skipped on all ranks"), std::string::npos) << poisoned.log;

  TemporaryDirectory doomed_run;
  TinyRun doomed;
  doomed.ranks = 2;
  doomed.poison_from = 5;
  doomed.options.checkpoint_every = 4;
  try {
    doomed(doomed_run.path());
    ADD_FAILURE() << "went on";
  } catch (const NonFiniteError& error) {
    EXPECT_THAT(error.what(), HasSubstr("in a row; checkpoints so far, if any, are whole: lower"));
  }
  EXPECT_EQ(load_latest_checkpoint(doomed_run / "checkpoints", *CapturedLog())->step, 4);
}

TEST(Trainer, RefusesToContinueWithOtherBatches) {
  TemporaryDirectory run;
  TinyRun first, other;
  first.before_step = stop_at(9, 0);
  first(run.path());
  other.rows = 3;
  EXPECT_THROW(other(run.path()), ConfigError);
  other.rows = 1, other.micro_batches = 4;  // the same samples a step
  EXPECT_EQ(other(run.path()).steps, 20);
}

}  // namespace retort::train
