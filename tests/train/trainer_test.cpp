#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <mutex>
#include <set>
#include <sstream>

#include "comm/together.h"
#include "core/error.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"
#include "tests/train/captured_log.h"
#include "tests/train/faulty_files.h"
#include "tests/train/tiny_model.h"

namespace retort::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

double norm_of(const models::Parameters& parameters) {
  double squares = 0;
  for (const models::Parameter& p : parameters.unique())
    squares += p.working.detach().to(at::kDouble).square().sum().item<double>();
  return std::sqrt(squares);
}

struct Killed {};  // what a test throws where a process would be killed

TrainOptions tiny_options() {
  TrainOptions options;
  options.steps = 20;
  options.optimizer.lr = 1e-2;
  options.schedule.warmup = 4;
  options.log_every = 3;
  options.validate_every = 5;
  options.checkpoint_every = 0;
  options.keep_checkpoints = 1;
  return options;
}

// One run of thread ranks over one corpus, with places to interfere.
struct TinyRun {
  int ranks = 1;
  int64_t micro_batches = 2;  // of a rank
  TrainOptions options = tiny_options();
  FileSystem* files = &quick_files();
  std::function<void(int rank, int64_t step, std::atomic<bool>& stop)> before_step;
  std::function<void(int rank, TrainerParts& parts)> before_run;
  int odd_text_rank = -1;                        // reads the second corpus instead of the first
  double poison_from = 1e9, poison_until = 1e9;  // steps in which rank 0's loss is NaN
  int64_t rows = 2;
  double second_weight = 0.0;  // > 0: a second corpus beside the one of weight 1
  bool other_text = false;     // the second corpus instead of the first
  bool isolate_documents = false;
  int64_t limit = 0;
  at::ScalarType measured = at::kFloat;  // what precision auto finds to be faster
  std::vector<std::string> frozen;       // parameters
  bool unlabelled = false;               // every fifth step has no labels, from the third on
  bool learns = false;                   // the objective has a parameter of its own
  std::map<int64_t, double> figures;     // of validations, by step; else a norm
  double model_norm = 0;                 // of rank 0's weights, after run

  std::string log;                 // rank 0's, after run
  std::vector<int64_t> validated;  // rank 0's
  std::vector<int64_t> map_steps;  // to which rank 0's weight map was moved

  TrainReport operator()(const Path& directory) {
    const testing::Threads one_thread(1);
    CapturedLog captured;
    std::vector<TrainReport> reports(static_cast<size_t>(ranks));
    const auto keep_log = [&] { log = captured.text(); };
    try {
      comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
        Log quiet(stderr, "", /*quiet=*/true);
        reports[static_cast<size_t>(comm.rank())] =
            rank(comm, directory, comm.rank() == 0 ? *captured : quiet);
      });
    } catch (...) {
      keep_log();
      throw;
    }
    keep_log();
    for (const TrainReport& report : reports) {
      EXPECT_EQ(report.steps, reports[0].steps);
      EXPECT_EQ(report.preempted, reports[0].preempted);
      EXPECT_EQ(report.final_loss, reports[0].final_loss);
    }
    return reports[0];
  }

 private:
  // Cross-entropy that tells of its steps and is NaN in those that the test poisons. It may learn a scale of the
  // first norm's weights.
  struct Loss final : Objective {
    explicit Loss(bool learns) : own(learns ? std::make_unique<models::Parameters>() : nullptr) {
      if (own) own->add("objective.scale", {1}, models::Role::kObjective).master.fill_(1.0);
    }
    std::function<bool(int64_t step)> poisons;
    bool poisoned = false, unlabelled = false;
    Counted counted() const override {
      if (!unlabelled) return labels();
      return {"labels", [](const data::Batch& batch) {
                return batch.samples.front() / 4 % 5 == 2 ? 0 : batch.valid_labels();
              }};
    }
    std::unique_ptr<Objective> inner = make_cross_entropy();
    std::unique_ptr<models::Parameters> own;
    void begin_step(int64_t step) override { poisoned = poisons(step); }
    models::Parameters* learned() override { return own.get(); }
    LossSum operator()(models::Model& model, const data::Batch& batch) override {
      LossSum loss = (*inner)(model, batch);
      if (own)
        loss.sum = loss.sum +
                   (own->at("objective.scale").working * model.parameters().at("final_norm.weight").working)
                       .square()
                       .sum();
      if (poisoned) loss.sum = loss.sum * std::numeric_limits<double>::quiet_NaN();
      return loss;
    }
    std::vector<std::string> part_names() const override { return inner->part_names(); }
  };

  // The identity, which writes down the steps that it is moved to.
  struct Map final : models::WeightMap {
    std::vector<int64_t> steps;
    bool begin_step(int64_t step) override { return steps.push_back(step), false; }
    at::Tensor apply(const models::Parameter&, const at::Tensor& x) override { return x; }
    at::Tensor pull_back(const models::Parameter&, const at::Tensor& gradient) override { return gradient; }
    bool identity_for(const models::Parameter&) const override { return true; }
  };

  static const std::shared_ptr<const data::TokenShards>& corpus() {
    static const TemporaryDirectory directory;
    static const auto shards =
        testing::write_corpus(directory / "shards", testing::random_documents(4, 40, 60, 23));
    return shards;
  }
  static const std::shared_ptr<const data::TokenShards>& second_corpus() {
    static const TemporaryDirectory directory;
    static const auto shards =
        testing::write_corpus(directory / "shards", testing::random_documents(5, 4, 60, 23));
    return shards;
  }

  TrainReport rank(comm::Comm& comm, const Path& directory, Log& log_of_rank) {
    TinyModel tiny;
    for (const std::string& name : frozen) tiny.model.parameters().at(name).freeze();
    Map map;
    models::bind_working(tiny.model.parameters(), map, measured);
    Loss objective(learns);
    objective.unlabelled = unlabelled;
    std::atomic<bool> stop = false;
    const auto optimizer = make_optimizer(options.optimizer, {tiny.model.parameters(), objective.learned()});
    std::vector<data::Source> sources = {
        {"first", other_text || comm.rank() == odd_text_rank ? second_corpus() : corpus()}};
    if (second_weight > 0) sources.push_back({"second", second_corpus(), second_weight});
    const data::BatchStream stream(
        sources,
        {.sequence = 12, .rows = rows, .seed = 3, .isolate_documents = isolate_documents, .limit = limit});
    TrainerParts parts{.step = {tiny.model, map, objective, *optimizer, comm},
                       .stream = stream,
                       .files = *files,
                       .log = log_of_rank,
                       .directory = directory,
                       .recipe = "run: { name: tiny }\n",
                       .facts = {{"model", "a tiny decoder"}},
                       .validate = {},
                       .stop = &stop};
    objective.poisons = [&, this](int64_t step) {
      const auto s = static_cast<double>(step);
      if (before_step) before_step(comm.rank(), step, stop);
      return comm.rank() == 0 && s >= poison_from && s < poison_until;
    };
    parts.validate = [&, this](int64_t done) -> std::map<std::string, double> {
      if (comm.rank() == 0) validated.push_back(done);
      if (!figures.empty()) return {{"figure", figures.at(done)}};
      return {{"norm", tiny.model.parameters().unique()[0].master.norm().item<double>()}};
    };
    if (before_run) before_run(comm.rank(), parts);
    const TrainReport report = Trainer(std::move(parts), options, micro_batches).run();
    if (comm.rank() == 0) map_steps = map.steps;
    if (comm.rank() == 0) model_norm = norm_of(tiny.model.parameters());
    return report;
  }
};

// Every file below, by relative name, without what may hold wall-clock facts.
std::map<std::string, std::string> contents(const Path& directory) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    const std::string name = std::filesystem::relative(entry.path(), directory).string();
    if (entry.is_regular_file() && !name.starts_with("tensorboard") && name != "progress.json")
      out[name] = read_text(entry.path());
  }
  return out;
}

void expect_same(const Path& a, const Path& b) {
  const auto left = contents(a), right = contents(b);
  ASSERT_EQ(left.size(), right.size());
  EXPECT_EQ(left.size(), 6u);  // a checkpoint of four files, LATEST and metrics.jsonl
  for (const auto& [name, bytes] : left) {
    ASSERT_TRUE(right.contains(name)) << name;
    EXPECT_TRUE(bytes == right.at(name)) << name;
  }
}

// Sets the flag of one rank while step `at` runs.
auto stop_at(int64_t at, int on_rank) {
  return [=](int rank, int64_t step, std::atomic<bool>& stop) {
    if (rank == on_rank && step == at) stop = true;
  };
}

class FullDisk final : public QuickFiles {
 public:
  explicit FullDisk(std::set<std::string> refused) : refused_(std::move(refused)) {}
  std::unique_ptr<WritableFile> create(const Path& path, uint64_t bytes) override {
    for (const std::string& name : refused_)
      if (path.string().find(name) != std::string::npos)
        fail<IoError>("{}: No space left on device", path.string());
    return QuickFiles::create(path, bytes);
  }

 private:
  std::set<std::string> refused_;
};

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

TEST(Trainer, StoppingAndResumingDoesNotChangeABit) {
  for (const int ranks : {1, 2}) {
    TemporaryDirectory whole_run, parts_run;
    TinyRun whole, first, second;
    whole.ranks = first.ranks = second.ranks = ranks;
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

TEST(Trainer, OneSeedGivesTheSameBytesHoweverTheBatchIsSplit) {
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

// A bit that flips in one rank's memory is found before it gets into a checkpoint, and the rank is named.
TEST(Trainer, ARankWhoseWeightsHaveChangedIsNamedBeforeASave) {
  const TemporaryDirectory directory, whole;
  TinyRun run;
  run.ranks = 3;
  run.micro_batches = 1;
  run.options.checkpoint_every = 5;
  std::vector<models::Parameters*> parameters(3);
  run.before_run = [&](int rank, TrainerParts& parts) {
    parameters[static_cast<size_t>(rank)] = &parts.step.model.parameters();
  };
  run.before_step = [&](int rank, int64_t step, std::atomic<bool>&) {
    const at::NoGradGuard no_grad;
    if (rank == 1 && step == 7) parameters[1]->unique().back().master.view(-1)[0] *= 1.0000001;
  };
  try {
    run(directory / "run");
    FAIL() << "trained on";
  } catch (const comm::SharedError& error) {
    EXPECT_EQ(error.code(), ExitCode::kCommunication);
    EXPECT_THAT(error.what(), HasSubstr("step 10: the weights of rank 1 differ"));
  }
  EXPECT_EQ(list_checkpoints(directory / "run/checkpoints").front().filename(), "step_00000005");

  TinyRun again = run, undisturbed = run;
  again.before_step = undisturbed.before_step = {};
  again.before_run = undisturbed.before_run = {};
  again(directory / "run");
  undisturbed(whole / "run");
  expect_same(directory / "run", whole / "run");
}

// The checkpoint of the lowest figure outlives the rotation, is what others open, and is what the run ends with.
TEST(Trainer, KeepsTheBestCheckpointAsItsModel) {
  for (const int ranks : {1, 2}) {
    const TemporaryDirectory run, whole;
    TinyRun best, upto;
    best.ranks = upto.ranks = ranks;
    best.micro_batches = upto.micro_batches = 2 / ranks;
    best.options.keep_best = true;
    best.figures = {{5, 3.0}, {10, 1.0}, {15, 2.0}, {20, 1.5}};
    const TrainReport report = best(run.path());
    EXPECT_EQ(report.steps, 20);
    EXPECT_EQ(report.model_step, 10);
    const Path checkpoints = run / "checkpoints";
    EXPECT_EQ(list_checkpoints(checkpoints),
              (std::vector<Path>{checkpoints / "step_00000020", checkpoints / "step_00000010"}));
    EXPECT_EQ(model_checkpoint(checkpoints), checkpoints / "step_00000010");
    Log quiet(stderr, "", true);
    EXPECT_EQ(load_model_checkpoint(checkpoints, quiet)->step, 10);
    EXPECT_EQ(load_latest_checkpoint(checkpoints, quiet)->step, 20) << "a run continues from its newest";

    upto.before_step = stop_at(9, 0);
    upto(whole.path());  // the run as it was after ten steps
    EXPECT_EQ(best.model_norm, upto.model_norm);

    TinyRun again;
    again.ranks = ranks, again.micro_batches = 2 / ranks;
    again.options = best.options;
    again.figures = best.figures;
    EXPECT_EQ(again(run.path()).model_step, 10);
    EXPECT_EQ(again.model_norm, best.model_norm);
    std::filesystem::remove_all(checkpoints / "step_00000010");
    EXPECT_EQ(model_checkpoint(checkpoints), checkpoints / "step_00000020");
  }
}

TEST(Trainer, EndsWhenItsPatienceDoes) {
  const TemporaryDirectory run, stopped;
  const auto tiny = [] {
    TinyRun out;
    out.options.patience = 2;
    out.options.validate_every = 3;
    out.figures = {{3, 3.0}, {6, 2.0}, {9, 2.5}, {12, 2.0}, {15, 1.0}, {18, 1.0}, {20, 1.0}};
    return out;
  };
  TinyRun whole = tiny();
  const TrainReport report = whole(run.path());
  EXPECT_EQ(report.steps, 12);  // 2.0 at 12 is no lower than at 6
  EXPECT_EQ(report.model_step, 12);
  EXPECT_THAT(whole.validated, ElementsAre(3, 6, 9, 12));
  EXPECT_EQ(list_checkpoints(run / "checkpoints").front().filename(), "step_00000012");

  TinyRun first = tiny(), second = tiny(), third = tiny();
  first.before_step = stop_at(9, 0);
  EXPECT_TRUE(first(stopped.path()).preempted);
  EXPECT_EQ(second(stopped.path()).steps, 12) << "the count goes on after a stop";
  expect_same(run.path(), stopped.path());
  EXPECT_EQ(third(stopped.path()).steps, 12);
  EXPECT_TRUE(third.validated.empty()) << "there is nothing left to do";
}

TEST(Trainer, ADamagedNewestCheckpointFallsBackAndEndsTheSame) {
  TemporaryDirectory whole_run, damaged_run;
  TinyRun whole, first, resumed;
  first.options.checkpoint_every = 5;
  first.options.keep_checkpoints = 2;
  whole(whole_run.path());
  first.before_step = stop_at(9, 0);
  first(damaged_run.path());
  const Path shard = damaged_run / "checkpoints/step_00000010/optimizer.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 4);
  resumed(damaged_run.path());
  EXPECT_NE(resumed.log.find("optimizer.safetensors"), std::string::npos) << resumed.log;
  EXPECT_NE(resumed.log.find("continuing from"), std::string::npos) << resumed.log;
  EXPECT_THAT(resumed.validated, ElementsAre(10, 15, 20));
  expect_same(whole_run.path(), damaged_run.path());

  for (const Path& path : list_checkpoints(damaged_run / "checkpoints"))
    std::filesystem::resize_file(path / "weights.safetensors", 100);
  EXPECT_THROW(resumed(damaged_run.path()), CheckpointError);
}

TEST(Trainer, AFullDiskDuringASaveDoesNotStopTheRun) {
  TemporaryDirectory whole_run, full_run;
  TinyRun whole, full;
  full.ranks = 2, full.micro_batches = 1;
  full.options.checkpoint_every = 5;
  FullDisk files({"step_00000010", "step_00000015"});
  full.files = &files;
  whole(whole_run.path());
  EXPECT_EQ(full(full_run.path()).steps, 20);
  EXPECT_NE(full.log.find("step 10 could not be saved"), std::string::npos) << full.log;
  EXPECT_NE(full.log.find("No space left"), std::string::npos) << full.log;
  expect_same(whole_run.path(), full_run.path());
}

TEST(Trainer, TooManyFailedSavesAreAnErrorOnEveryRank) {
  TemporaryDirectory run;
  TinyRun full;
  full.ranks = 2;
  full.options.checkpoint_every = 2;
  full.options.max_failed_saves = 3;
  FullDisk files({"step_00000004", "step_00000006", "step_00000008", "step_0000001"});
  full.files = &files;
  EXPECT_THROW(full(run.path()), IoError);
  EXPECT_THAT(list_checkpoints(run / "checkpoints"), ElementsAre(run / "checkpoints/step_00000002"));
  EXPECT_EQ(load_checkpoint(run / "checkpoints/step_00000002").step, 2);

  FullDisk last({"step_00000020"});  // nothing makes up for the last one
  full.files = &last;
  EXPECT_THROW(full(run.path()), IoError);
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
  EXPECT_THROW(doomed(doomed_run.path()), NonFiniteError);
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
