// Faults of numbers and machines, on ranks that are threads: docs/reliability.md has the table of all. Those that need
// processes are in tests/recipes/faults_test.cpp.
#include <gmock/gmock.h>

#include "comm/together.h"
#include "core/inject.h"
#include "tests/train/tiny_run.h"
#include "train/replicas.h"

namespace retort::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryDirectory;

// A run with faults, each rank with its own copy of them, which outlives it.
struct FaultyRun : TinyRun {
  explicit FaultyRun(const std::string& faults, int count = 1) {
    ranks = count;
    micro_batches = 4 / count;
    options.validate_every = 0;
    for (int rank = 0; rank < count; ++rank) injections.push_back(std::make_unique<Injection>(faults));
    before_run = [this](int rank, TrainerParts& parts) {
      parts.step.faults = injections[static_cast<size_t>(rank)].get();
    };
  }
  std::vector<std::unique_ptr<Injection>> injections;
};

// Spikes are judged from the seventh step on, and two in a row go back.
GuardOptions watchful() {
  return {.zscore = 20, .window = 6, .rerun = false, .rollbacks = 1, .margin = 1, .compare_every = 0};
}

std::vector<int64_t> skipped_in(const Path& run) {
  const LoadedCheckpoint last = load_checkpoint(list_checkpoints(run / "checkpoints").front());
  return last.extra["train"]["skipped"].get<std::vector<int64_t>>();
}

formats::Json left_out_in(const Path& run) {
  const LoadedCheckpoint last = load_checkpoint(list_checkpoints(run / "checkpoints").front());
  const formats::Json& train = last.extra["train"];
  return train.contains("left_out") ? train["left_out"] : formats::Json::array();
}

// Only what a run ends with: those that were stopped keep other checkpoints before it.
void expect_same_end(const Path& a, const Path& b) {
  const auto left = contents(a), right = contents(b);
  const std::string newest = list_checkpoints(a / "checkpoints").front().filename();
  for (const auto& [name, bytes] : left)
    if (name == "metrics.jsonl" || name.find(newest) != name.npos) {
      EXPECT_TRUE(right.contains(name) && bytes == right.at(name)) << name;
    }
}

}  // namespace

TEST(Faults, Fault21NaNInGradientsOnOneRankIsSkippedByAll) {
  std::vector<std::map<std::string, std::string>> ends;
  for (const int ranks : {1, 2, 4}) {
    const TemporaryDirectory directory;
    FaultyRun run(fmt::format("rank={},step=6,point=backward,fault=nan", ranks - 1), ranks);
    std::vector<std::vector<at::Tensor>> before(static_cast<size_t>(ranks)), after(before);
    std::vector<models::Parameters*> parameters(static_cast<size_t>(ranks));
    const auto inject = run.before_run;
    run.before_run = [&](int rank, TrainerParts& parts) {
      inject(rank, parts);
      parameters[static_cast<size_t>(rank)] = &parts.step.model.parameters();
    };
    run.before_step = [&](int rank, int64_t step, std::atomic<bool>&) {
      const auto r = static_cast<size_t>(rank);
      if (step != 5 && step != 6) return;
      for (const models::Parameter& p : parameters[r]->unique())
        (step == 5 ? before : after)[r].push_back(p.master.clone());
    };
    run(directory / "run");
    EXPECT_THAT(skipped_in(directory / "run"), ElementsAre(5));
    EXPECT_THAT(run.log, HasSubstr("step 6: loss or gradient is not finite"));
    for (size_t r = 0; r < before.size(); ++r)
      for (size_t i = 0; i < before[r].size(); ++i) {
        EXPECT_TRUE(testing::same_bits(before[r][i], after[r][i])) << r << " " << i;
        EXPECT_TRUE(testing::same_bits(after[0][i], after[r][i])) << r << " " << i;
      }
    ends.push_back(contents(directory / "run/checkpoints"));
    EXPECT_EQ(ends.back(), ends.front()) << ranks;
  }
}

TEST(Faults, Fault22NaNInThreeStepsGoesBackOnceAndEndsTheSecondTime) {
  for (const int ranks : {1, 4}) {
    const TemporaryDirectory directory;
    const auto with = [&](const std::string& faults) {
      FaultyRun run(faults, ranks);
      run.options.checkpoint_every = 4;
      run.options.keep_checkpoints = 3;
      run.options.guard = GuardOptions{.rollbacks = 1, .margin = 2};
      return run;
    };
    FaultyRun once = with("rank=0,step=9..11,point=backward,fault=nan,times=0");
    once(directory / "once");
    EXPECT_THAT(once.log, HasSubstr("going back to step 4, and steps 7 to 13 are left out"));
    EXPECT_EQ(left_out_in(directory / "once"), (formats::Json{{6, 13}}));
    EXPECT_TRUE(skipped_in(directory / "once").empty());

    FaultyRun twice = with(
        "rank=0,step=9..11,point=backward,fault=nan,times=0;"
        "rank=0,step=15..17,point=backward,fault=nan,times=0");
    EXPECT_THROW(twice(directory / "twice"), NonFiniteError);
    FaultyRun never = with("rank=0,step=9..11,point=backward,fault=nan,times=0");
    never.options.guard.reset();
    EXPECT_THROW(never(directory / "never"), NonFiniteError);
    FaultyRun early = with("rank=0,step=2..4,point=backward,fault=nan,times=0");
    try {
      early(directory / "early");
      ADD_FAILURE() << "went back to nothing";
    } catch (const NonFiniteError& error) {
      EXPECT_THAT(error.what(), HasSubstr("no checkpoint of step 0 or before"));
    }
  }
}

TEST(Faults, Fault23ALossSpikeIsSkippedGoneBackFromAndDecidedAlikeAfterEveryStop) {
  const auto with = [](int ranks) {
    FaultyRun run("", ranks);
    run.poison = 50, run.poison_from = 10, run.poison_until = 12;
    run.options.guard = watchful();
    run.options.max_skipped = 2;
    run.options.checkpoint_every = 4;
    run.options.keep_checkpoints = 3;
    run.options.log_every = 1;
    run.before_run = [inject = run.before_run](int rank, TrainerParts& parts) {
      inject(rank, parts);
      parts.validate = {};  // it reads whole masters
    };
    return run;
  };
  const TemporaryDirectory directory;
  FaultyRun whole = with(1);
  whole(directory / "whole");
  EXPECT_THAT(whole.log, HasSubstr("step 11: loss or gradient is a spike"));
  EXPECT_THAT(whole.log, HasSubstr("going back to step 8, and steps 10 to 13 are left out"));
  EXPECT_EQ(left_out_in(directory / "whole"), (formats::Json{{9, 13}}));
  for (const int ranks : {2, 4})
    for (const Divided divided :
         {Divided::kNothing, Divided::kMoments, Divided::kGradients, Divided::kParameters}) {
      const Path at = directory / fmt::format("ranks{}-{}", ranks, static_cast<int>(divided));
      FaultyRun run = with(ranks);
      run.divided = divided;
      run(at);
      expect_same_end(directory / "whole", at);
    }
  for (int64_t stop = 1; stop < 20; ++stop) {  // and goes on with another number of ranks
    const Path at = directory / fmt::format("stop{}", stop);
    FaultyRun first = with(1), second = with(2);
    first.options.keep_checkpoints = second.options.keep_checkpoints = 9;
    first.before_step = stop_at(stop, 0);
    first(at);
    second(at);
    expect_same_end(directory / "whole", at);
  }
}

TEST(Faults, Fault24AFlippedMantissaBitInOneReplicaIsFoundAndItsRankNamed) {
  const TemporaryDirectory directory;
  FaultyRun run("rank=2,step=7,point=after_update,fault=bitflip:3", 4);
  run.options.guard = GuardOptions{.compare_every = 3};
  try {
    run(directory / "run");
    FAIL() << "trained on";
  } catch (const comm::SharedError& error) {
    EXPECT_EQ(static_cast<int>(error.code()), 78);
    EXPECT_THAT(error.what(), HasSubstr("step 9: the weights of rank 2 differ"));
  }
}

TEST(Faults, Fault25ATransientFaultOfOneMicroBatchIsToldAndTheStepComputedAgain) {
  for (const int ranks : {1, 4})
    for (const char* fault : {"nan", "bitflip:30"}) {
      const TemporaryDirectory directory;
      const auto with = [&](const std::string& faults) {
        FaultyRun run(faults, ranks);
        run.options.guard = watchful();
        run.options.guard->rerun = true;
        return run;
      };
      const std::string spoiled = fmt::format("rank={},step=9,point=backward,fault={}", ranks - 1, fault);
      FaultyRun undisturbed = with(""), transient = with(spoiled), data = with(spoiled + ",times=0"),
                again =
                    with(spoiled + ";" + fmt::format("rank={},step=12,point=backward,fault=nan", ranks - 1));
      undisturbed(directory / "undisturbed");
      transient(directory / "transient");
      EXPECT_THAT(transient.log,
                  HasSubstr(fmt::format("step 9: computed once more, it came out otherwise on rank {} on ",
                                        ranks - 1)));
      expect_same(directory / "undisturbed", directory / "transient");

      again.options.guard->zscore = 0;
      if (std::string(fault) == "nan") {
        try {
          again(directory / "again");
          ADD_FAILURE() << "trusted it twice";
        } catch (const comm::SharedError& error) {
          EXPECT_EQ(static_cast<int>(error.code()), 78);
          EXPECT_THAT(error.what(), HasSubstr("for the second time; checkpoints so far, if any, are whole"));
        }
      }
      // The same bits both times: the model or the data, and the step is skipped.
      std::vector<int64_t> steps;
      data(directory / "data");
      EXPECT_THAT(data.log, Not(HasSubstr("computed once more")));
      EXPECT_THAT(skipped_in(directory / "data"), ElementsAre(8));
    }
}

}  // namespace retort::train
