// Faults of whole processes, by real signals, on up to four ranks: docs/reliability.md has the table. The
// numbers' own are in tests/train/faults_test.cpp.
#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "comm/comm.h"
#include "formats/json.h"
#include "tests/recipes/process.h"
#include "tests/testing.h"
#include "train/checkpoint.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;
using testing::binary;
using ::testing::Each;
using testing::has_mpirun;
using ::testing::HasSubstr;
using testing::Process;
using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

template <class Done>
bool eventually(const Done& done, int seconds = 120) {
  const auto late = Clock::now() + std::chrono::seconds(seconds);
  while (Clock::now() < late) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return done();
}

// The program's processes that have this text among their words.
int64_t processes_with(const std::string& text) {
  int64_t count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline", std::ios::binary);
    const std::string line(std::istreambuf_iterator<char>(file), {});
    if (line.starts_with(binary().string() + '\0') && line.find(text) != line.npos) ++count;
  }
  return count;
}

class SlowFaults : public ::testing::Test {
 protected:
  SlowFaults() {
    std::ofstream text(directory_ / "a.txt");
    for (int i = 0; i < 600; ++i)
      text << "In line " << i << " is " << i * i << ", and then comes the next.\n";
  }

  Words arguments(const std::string& run, const Words& sets) const {
    Words out = {"run", (testing::source_directory() / "tests/recipes/faults.yaml").string(),
                 "run.text=" + (directory_ / "a.txt").string(), "run.dir=" + (directory_ / run).string()};
    out.insert(out.end(), sets.begin(), sets.end());
    return out;
  }
  Words command(const std::string& run, const Words& sets = {}) const {
    Words out = {binary().string()};
    const Words rest = arguments(run, sets);
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
  }
  Words under_mpirun(const std::string& faults, const std::string& run, const Words& sets = {}) const {
    Words out = testing::mpirun(4);
    out.insert(out.begin() + 1, {"RETORT_INJECT=" + faults, "RETORT_COMM_TIMEOUT=60"});
    const Words rest = command(run, sets);
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
  }
  // Under the launcher that comes with Retort, with these variables besides.
  Words under_loop(int ranks, const Words& variables, const std::string& run) const {
    Words out = {"env", "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                 "RETORT_COMM_TIMEOUT=60"};
    out.insert(out.end(), variables.begin(), variables.end());
    const Words options = {(testing::source_directory() / "launch/mpirun_loop.sh").string(),
                           "--oversubscribe",
                           "--bind-to",
                           "none",
                           "-n",
                           std::to_string(ranks),
                           "--"};
    out.insert(out.end(), options.begin(), options.end());
    const Words rest = arguments(run, {});
    out.insert(out.end(), rest.begin() + 1, rest.end());
    return out;
  }
  // Joined over TCP, with the logs RUN0, RUN1, ...
  std::vector<std::unique_ptr<Process>> over_tcp(int ranks, const std::string& faults, const std::string& run,
                                                 const Words& sets = {}) const {
    const int port = testing::free_port();
    std::vector<std::unique_ptr<Process>> out;
    for (int rank = 0; rank < ranks; ++rank) {
      Words words = {"env",
                     fmt::format("RANK={}", rank),
                     fmt::format("WORLD_SIZE={}", ranks),
                     fmt::format("MASTER_PORT={}", port),
                     "MASTER_ADDR=localhost",
                     "RETORT_COMM_TIMEOUT=60",
                     "RETORT_INJECT=" + faults};
      const Words rest = command(run, sets);
      words.insert(words.end(), rest.begin(), rest.end());
      out.push_back(std::make_unique<Process>(words, directory_ / (run + std::to_string(rank))));
    }
    return out;
  }
  static std::vector<int> codes_of(const std::vector<std::unique_ptr<Process>>& processes) {
    std::vector<int> out;
    for (const auto& process : processes) {
      EXPECT_TRUE(eventually([&] { return !process->running(); })) << "a rank hangs";
      process->signal(SIGKILL);
      out.push_back(process->wait());
    }
    return out;
  }
  int execute(const Words& words, const std::string& log) const {
    return Process(words, directory_ / log).wait();
  }
  std::string said(const std::string& log) const { return read_text(directory_ / (log + ".err")); }

  Path newest(const std::string& run) const {
    return train::list_checkpoints(directory_ / run / "model/checkpoints").front();
  }
  // Whether the lines of metrics have come to a step; the save of that step begins then.
  bool came_to(const std::string& run, int64_t step) const {
    const Path metrics = directory_ / run / "model/metrics.jsonl";
    std::error_code none;
    return fs::exists(metrics, none) &&
           read_text(metrics).find(fmt::format("\"step\":{},", step)) != std::string::npos;
  }
  // The whole run once more, to the bytes of an undisturbed one.
  void expect_to_end_as_undisturbed(const std::string& run, const Words& sets = {}) const {
    ASSERT_EQ(execute(command(run, sets), run + "-again"), 0) << said(run + "-again");
    expect_as_undisturbed(run, sets);
  }
  void expect_as_undisturbed(const std::string& run, const Words& sets = {}) const {
    if (!fs::exists(directory_ / "whole")) {
      ASSERT_EQ(execute(command("whole", sets), "whole"), 0) << said("whole");
    }
    ASSERT_EQ(newest(run).filename(), newest("whole").filename());
    for (const auto& entry : fs::directory_iterator(newest("whole")))
      EXPECT_TRUE(read_text(entry.path()) == read_text(newest(run) / entry.path().filename()))
          << entry.path();
    EXPECT_EQ(read_text(directory_ / run / "model/metrics.jsonl"),
              read_text(directory_ / "whole/model/metrics.jsonl"));
  }

  testing::TemporaryDirectory directory_;
};

// A disk of its own in memory, where this process may mount one.
class SmallDisk {
 public:
  SmallDisk(Path path, const char* size) : path_(std::move(path)) {
    fs::create_directory(path_);
    mounted_ = shell("mount -t tmpfs -o size={} tmpfs '{}' 2>/dev/null", size, path_.string()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) shell("umount '{}'", path_.string());
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  template <class... Args>
  static int shell(fmt::format_string<Args...> text, Args&&... args) {
    return std::system(fmt::format(text, std::forward<Args>(args)...).c_str());
  }
  const Path path_;
  bool mounted_ = false;
};

}  // namespace

TEST_F(SlowFaults, Fault01ARankKilledInBackwardEndsTheJobAndLeavesAWholeCheckpoint) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const std::string run = (directory_ / "run").string();
  // The save of step 20 is through before the kill; fault 2 has one in the background.
  Process job(under_mpirun("rank=2,step=25,point=backward,fault=kill", "run", {"train.save=sync"}),
              directory_ / "job");
  ASSERT_TRUE(eventually([&] { return processes_with(run) == 4 || !job.running(); }));
  ASSERT_TRUE(eventually([&] { return processes_with(run) < 4; })) << said("job");
  const auto killed = Clock::now();
  EXPECT_TRUE(eventually([&] { return !job.running(); })) << "mpirun hangs";
  EXPECT_LT(Clock::now() - killed, std::chrono::seconds(10));
  EXPECT_NE(job.wait(), 0);
  EXPECT_TRUE(eventually([&] { return processes_with(run) == 0; }, 10)) << "an orphan";
  EXPECT_EQ(train::load_checkpoint(newest("run")).step, 20);
  expect_to_end_as_undisturbed("run");
}

TEST_F(SlowFaults, Fault02ALoopAroundMpirunFinishesTheKilledRunInTheSameBytes) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const Path once = directory_ / "retort";  // at the first start rank 2 is killed
  std::ofstream(once) << fmt::format(
      "#!/bin/bash\nif [ \"$OMPI_COMM_WORLD_RANK\" = 2 ] && mkdir '{0}/hit' 2>/dev/null; then\n"
      "  export RETORT_INJECT=step=25,point=backward,fault=kill\nfi\nexec '{1}' \"$@\"\n",
      directory_.path().string(), binary().string());
  fs::permissions(once, fs::perms::owner_all);
  const Words words =
      under_loop(4, {"RETORT=" + once.string(), "RETORT_RESTART_DELAY=0", "RETORT_MAX_RESTARTS=1"}, "run");
  EXPECT_EQ(execute(words, "loop"), 0) << said("loop");
  EXPECT_TRUE(fs::exists(directory_ / "hit"));
  EXPECT_THAT(said("loop"), HasSubstr("starting again"));
  EXPECT_THAT(said("loop"), HasSubstr("continuing from"));
  expect_as_undisturbed("run");
}

// To every rank, as torchrun, srun and pods send it.
TEST_F(SlowFaults, Fault04ATermDuringALongSaveSavesAndStops) {
  const auto ranks = over_tcp(4, "rank=0,step=10,point=save,fault=slow:3000", "run");
  ASSERT_TRUE(eventually([&] { return came_to("run", 10) || !ranks[0]->running(); }));
  for (const auto& rank : ranks) EXPECT_TRUE(rank->signal(SIGTERM)) << said("run0");
  EXPECT_THAT(codes_of(ranks), Each(75)) << said("run0");
  EXPECT_EQ(formats::read_json(directory_ / "run/exit.json").at("code"), 75);
  const int64_t step = train::load_checkpoint(newest("run")).step;
  EXPECT_TRUE(step >= 10 && step < 20) << step;
  expect_to_end_as_undisturbed("run");
}

// The launcher that comes with Retort ends with the ranks' code, and starts none again.
TEST_F(SlowFaults, Fault04ATermToTheLauncherDuringALongSaveSavesAndStops) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const std::string fault = "RETORT_INJECT=rank=0,step=10,point=save,fault=slow:3000";
  Process loop(under_loop(2, {fault, "RETORT=" + binary().string()}, "run"), directory_ / "loop");
  ASSERT_TRUE(eventually([&] { return came_to("run", 10) || !loop.running(); }));
  EXPECT_TRUE(loop.signal(SIGTERM)) << said("loop");
  EXPECT_TRUE(train::list_checkpoints(directory_ / "run/model/checkpoints").empty()) << "no save under way";
  EXPECT_TRUE(eventually([&] { return !loop.running(); })) << "the launcher hangs";
  EXPECT_EQ(loop.wait(), 75) << said("loop");
  EXPECT_EQ(processes_with((directory_ / "run").string()), 0) << "an orphan";
  EXPECT_EQ(formats::read_json(directory_ / "run/exit.json").at("code"), 75);
  const int64_t step = train::load_checkpoint(newest("run")).step;
  EXPECT_TRUE(step >= 10 && step < 20) << step;
  expect_to_end_as_undisturbed("run");
}

TEST_F(SlowFaults, Fault05ASignalToOneRankSavesAllAtTheSameStep) {
  const auto ranks = over_tcp(4, "rank=1,step=15,point=before_step,fault=sigusr1", "run");
  EXPECT_THAT(codes_of(ranks), Each(75)) << said("run0");
  const int64_t step = train::load_checkpoint(newest("run")).step;
  EXPECT_TRUE(step >= 15 && step < 20) << step;
  expect_to_end_as_undisturbed("run");
}

TEST_F(SlowFaults, Fault06ASecondTermDuringASaveDiscardsItWhole) {
  const auto ranks = over_tcp(
      2, "rank=0,step=15,point=before_step,fault=sigterm;rank=0,step=15..19,point=save,fault=slow:20000",
      "run");
  ASSERT_TRUE(eventually([&] { return came_to("run", 15) || !ranks[0]->running(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // the first is in, and another is a second
  EXPECT_TRUE(ranks[0]->signal(SIGTERM));
  const auto sent = Clock::now();
  const std::vector<int> codes = codes_of(ranks);
  EXPECT_LT(Clock::now() - sent, std::chrono::seconds(10));  // what launch/mpirun_loop.sh gives them
  EXPECT_EQ(codes[0], 128 + SIGTERM) << said("run0");
  EXPECT_EQ(codes[1], 76) << said("run1");
  EXPECT_EQ(train::load_checkpoint(newest("run")).step, 10);
  expect_to_end_as_undisturbed("run");
}

TEST_F(SlowFaults, Fault09AnExceptionInAHookOfOneRankEndsAllAndIsTold) {
  const auto ranks = over_tcp(4, "rank=1,step=15,point=backward,fault=throw", "run");
  const std::string words = "RETORT_INJECT: step 15: rank=1,step=15,point=backward,fault=throw";
  const auto told = [&] {
    return fs::exists(directory_ / "run1.err") && said("run1").find(words) != std::string::npos;
  };
  ASSERT_TRUE(eventually(told)) << said("run1");
  const auto thrown = Clock::now();
  const std::vector<int> codes = codes_of(ranks);
  EXPECT_LT(Clock::now() - thrown, std::chrono::seconds(5));
  EXPECT_EQ(codes[1], 70);
  for (const int rank : {0, 2, 3}) EXPECT_EQ(codes[static_cast<size_t>(rank)], 76) << rank;
  const formats::Json exit = formats::read_json(directory_ / "run/exit.json");
  EXPECT_EQ(exit.at("code"), 70);
  EXPECT_THAT(exit.at("message").get<std::string>(), HasSubstr(words));
  expect_to_end_as_undisturbed("run");
}

TEST_F(SlowFaults, Fault10ARunWithASlowRankGoesOnAndNamesIt) {
  const auto ranks = over_tcp(4, "rank=2,step=11..20,point=before_step,fault=slow:500", "run");
  EXPECT_THAT(codes_of(ranks), Each(0)) << said("run0");
  EXPECT_THAT(said("run0"), HasSubstr("rank 2 has held the others up for "));
  expect_as_undisturbed("run");
}

TEST_F(SlowFaults, Fault11AStrictRunEndsWith65WhereTheNewestCheckpointIsDamaged) {
  ASSERT_THAT(codes_of(over_tcp(2, "rank=0,step=15,point=before_step,fault=sigterm", "run")), Each(75))
      << said("run0");
  const Path weights = newest("run") / "weights.safetensors";
  fs::resize_file(weights, 1000);
  EXPECT_THAT(codes_of(over_tcp(2, "", "run", {"--strict"})), Each(65)) << said("run0");
  EXPECT_THAT(said("run0"), HasSubstr(weights.string() + ": must have "));
  expect_to_end_as_undisturbed("run");
}

// Its text fits, and no checkpoint does.
TEST_F(SlowFaults, Fault15ADiskThatIsFullForEverySaveEndsTheRunInOrder) {
  const SmallDisk disk(directory_ / "run", "400k");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a disk";
  EXPECT_EQ(execute(command("run"), "job"), 74) << said("job");
  EXPECT_THAT(said("job"), HasSubstr("step 10 could not be saved, training goes on: "));
  EXPECT_THAT(said("job"), HasSubstr("step 30 could not be saved (3 in a row): "));
  EXPECT_THAT(said("job"), HasSubstr("no space left: a checkpoint takes "));
  EXPECT_TRUE(fs::is_empty(directory_ / "run/model/checkpoints"));
  EXPECT_EQ(formats::read_json(directory_ / "run/exit.json").at("code"), 74);
}

// The model's weights are a hole in its file, whose pages a full disk cannot give: a read of a mapping that
// fails.
TEST_F(SlowFaults, Fault16AMappedModelThatTheDiskRefusesIsNamed) {
  const SmallDisk disk(directory_ / "disk", "64k");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a disk";
  const Path model = directory_ / "disk/model.bin";
  constexpr int32_t kHeader[] = {64, 128, 1, 2, 2, 256, 64};  // llama2.c's
  std::ofstream(model, std::ios::binary).write(reinterpret_cast<const char*>(kHeader), sizeof kHeader);
  fs::resize_file(model, 238'364);
  std::ofstream(directory_ / "disk/rest") << std::string(100'000, 'a');
  EXPECT_EQ(execute({binary().string(), "inspect", model.string()}, "inspect"), 74);
  EXPECT_THAT(said("inspect"), HasSubstr("retort: " + model.string() + ": cannot read: the disk refuses it"));
}

TEST_F(SlowFaults, Fault21FourProcessesSkipTheNaNOfOne) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  ASSERT_EQ(execute(under_mpirun("rank=3,step=5,point=backward,fault=nan", "run"), "job"), 0) << said("job");
  EXPECT_THAT(said("job"), HasSubstr("RETORT_INJECT is set: this run breaks on purpose"));
  EXPECT_THAT(said("job"), HasSubstr("step 5: loss or gradient is not finite"));
  EXPECT_EQ(train::load_checkpoint(newest("run")).extra["train"]["skipped"], formats::Json{4});
}

TEST_F(SlowFaults, Fault24FourProcessesNameTheRankWhoseWeightsDiffer) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const Words compare = {"train.guard.compare_every=5"};
  EXPECT_EQ(execute(under_mpirun("rank=2,step=12,point=after_update,fault=bitflip:2", "run", compare), "job"),
            78)
      << said("job");
  EXPECT_THAT(said("job"), HasSubstr("step 15: the weights of rank 2 differ"));
  EXPECT_EQ(formats::read_json(directory_ / "run/exit.json").at("code"), 78);
  expect_to_end_as_undisturbed("run", compare);
}

TEST_F(SlowFaults, Fault25FourProcessesComputeATransientFaultAgain) {
  const Words rerun = {"train.guard.rerun=true"};
  const auto ranks = over_tcp(4, "rank=3,step=5,point=backward,fault=nan", "run", rerun);
  EXPECT_THAT(codes_of(ranks), Each(0)) << said("run0");
  EXPECT_THAT(said("run0"), HasSubstr("step 5: computed once more, it came out otherwise on rank 3 on "));
  expect_as_undisturbed("run", rerun);
}

TEST_F(SlowFaults, AFaultThatIsNotUnderstoodIsRefusedBeforeAnyWork) {
  Words words = command("run");
  words.insert(words.begin(), {"env", "RETORT_INJECT=step=3,fault=kill"});
  EXPECT_EQ(execute(words, "refused"), 2);
  EXPECT_THAT(said("refused"), HasSubstr("a fault needs point= and fault="));
  EXPECT_FALSE(fs::exists(directory_ / "run/text"));
}

}  // namespace retort::recipes
