#include "train/trainer.h"

#include <gmock/gmock.h>

#include <set>

#include "comm/together.h"
#include "core/error.h"
#include "tests/train/tiny_run.h"
#include "train/replicas.h"

namespace retort::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

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

// A bit that flips in one rank's memory is found before it gets into a checkpoint, and the rank is named.
TEST(TrainerSaves, ARankWhoseWeightsHaveChangedIsNamedBeforeASave) {
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
    EXPECT_EQ(error.code(), kFaultyMachine);
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
TEST(TrainerSaves, KeepsTheBestCheckpointAsItsModel) {
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

// A run that goes on from another's checkpoint takes that one's best with it.
TEST(TrainerSaves, TheBestOfTheRunBeforeGoesAlong) {
  for (const bool lost : {false, true}) {
    const TemporaryDirectory before, after;
    TinyRun first, second;
    first.options.keep_best = second.options.keep_best = true;
    first.figures = {{5, 3.0}, {10, 1.0}, {15, 2.0}, {20, 1.5}};
    second.figures = {{20, 1.5}, {25, 4.0}, {30, 5.0}};  // the one at 20 is shown again, and counts once
    second.options.steps = 30;
    second.options.patience = 3;
    second.ranks = 2, second.micro_batches = 1;
    first(before.path());
    if (lost) std::filesystem::remove_all(before / "checkpoints/step_00000010");
    second.before_run = [&](int, TrainerParts& parts) {
      parts.resume_from = before / "checkpoints/step_00000020";
    };
    const TrainReport report = second(after.path());
    EXPECT_EQ(report.model_step, lost ? 25 : 10);
    EXPECT_EQ(report.steps, lost ? 30 : 25);
    EXPECT_EQ(model_checkpoint(after / "checkpoints").filename(), lost ? "step_00000025" : "step_00000010");
    EXPECT_EQ(second.log.find("is gone") != std::string::npos, lost) << second.log;
    if (!lost) {
      EXPECT_EQ(second.model_norm, first.model_norm);
    }
  }
}

// Where there is nothing left to do, what the run goes on from is its result all the same.
TEST(TrainerSaves, ARunThatBeginsAtItsEndHasACheckpoint) {
  const TemporaryDirectory before, after;
  TinyRun first, second;
  first.options.patience = second.options.patience = 1;
  first.options.keep_best = second.options.keep_best = true;
  first.figures = {{5, 1.0}, {10, 2.0}};
  second.options.steps = 30;
  first(before.path());
  second.before_run = [&](int, TrainerParts& parts) {
    parts.resume_from = before / "checkpoints/step_00000010";
  };
  EXPECT_EQ(second(after.path()).model_step, 5);
  EXPECT_TRUE(second.validated.empty());
  EXPECT_EQ(list_checkpoints(after / "checkpoints").size(), 2u);
  EXPECT_EQ(second.model_norm, first.model_norm);
}

// By the named figure, in its direction; a validation without that figure does not count.
TEST(TrainerSaves, ChoosesByTheFigureThatIsNamed) {
  const std::map<int64_t, double> accuracies = {{5, 0.25}, {15, 0.5}, {20, 0.5}};
  for (const bool higher : {true, false}) {
    const TemporaryDirectory run;
    TinyRun tiny;
    tiny.options.keep_best = true;
    tiny.before_run = [&](int, TrainerParts& parts) {
      parts.best = "task.acc", parts.higher = higher;
      parts.validate = [&](int64_t done) {
        std::map<std::string, double> out = {{"loss", static_cast<double>(-done)}};
        if (accuracies.contains(done)) out["task.acc"] = accuracies.at(done);
        return out;
      };
    };
    EXPECT_EQ(tiny(run.path()).model_step, higher ? 15 : 5);
  }
}

TEST(TrainerSaves, EndsWhenItsPatienceDoes) {
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

// A checkpoint of 4 ranks or 2 goes on with 2, 4, 3 or 1, and what each policy divides under every other, to the bytes of one
// rank that was never stopped.
TEST(TrainerSaves, Fault28EveryPolicyGoesOnFromEveryOtherOnOtherRanks) {
  constexpr Divided kAll[] = {Divided::kNothing, Divided::kMoments, Divided::kGradients,
                              Divided::kParameters};
  constexpr std::pair<int, int> kRanks[] = {{4, 2}, {2, 4}, {4, 3}, {4, 1}};
  const auto run_of = [](int ranks, Divided divided) {
    TinyRun out;
    out.ranks = ranks, out.micro_batches = 12 / ranks;
    out.rows = 1;
    out.divided = divided;
    out.block_rows = 3;
    out.options.steps = 4;
    out.options.validate_every = 0;
    out.before_run = [](int, TrainerParts& parts) {
      parts.validate = {};
    };  // it reads masters, here rows alone
    return out;
  };
  const TemporaryDirectory directory;
  TinyRun whole = run_of(1, Divided::kNothing);
  whole(directory / "whole");
  std::map<std::pair<int, Divided>, Path> stopped;
  for (const int ranks : {4, 2})
    for (const Divided before : kAll) {
      Path& path = stopped[{ranks, before}];
      path = directory / fmt::format("{} {}", ranks, static_cast<int>(before));
      TinyRun run = run_of(ranks, before);
      run.before_step = stop_at(1, 0);
      run(path);
    }
  for (size_t i = 0; const Divided before : kAll)
    for (const Divided after : kAll) {
      const auto [from, to] =
          kRanks[(i++ * 5 / 4) % 4];  // each pair of ranks with each policy before and after
      const Path path = directory / "again";
      std::filesystem::copy(stopped.at({from, before}), path, std::filesystem::copy_options::recursive);
      SCOPED_TRACE(fmt::format("{} ranks, policy {}, then {} ranks, policy {}", from,
                               static_cast<int>(before), to, static_cast<int>(after)));
      TinyRun run = run_of(to, after);
      run.options.save = i % 2 == 0 ? "sync" : "async";
      EXPECT_EQ(run(path).steps, 4);
      expect_same(path, directory / "whole");
      std::filesystem::remove_all(path);
    }
}

TEST(TrainerSaves, Fault11ADamagedNewestCheckpointFallsBackAndEndsTheSame) {
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

TEST(TrainerSaves, Fault15AFullDiskDuringASaveDoesNotStopTheRun) {
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

TEST(TrainerSaves, Fault15TooManyFailedSavesAreAnErrorOnEveryRank) {
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

}  // namespace retort::train
