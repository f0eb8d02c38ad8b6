// A run that is killed again and again, by SIGKILL at random moments, one rank or all, and goes on each time on
// another number of ranks: it must come to every byte of an undisturbed one.
//   RETORT_KILLS  how many (20)      RETORT_KILL_SEED  of the moments (1); scripts/kill_test.sh sets both
// The soak goes on for RETORT_SOAK_SECONDS, and also stops ranks by SIGSTOP for a while: scripts/kill_test.sh --soak.
#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "core/error.h"
#include "tests/recipes/process.h"
#include "tests/testing.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using testing::binary;
using testing::Process;

int64_t number_of(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoll(text, nullptr, 10) : otherwise;
}

// Files that tell when or how fast, and not what came out.
bool is_of_this_start(const Path& file) {
  static const std::set<std::string> kNames = {".lock",     "exit.json",   "progress.json", "report.json",
                                               "report.md", "result.json", "stage.json"};
  return kNames.contains(file.filename().string()) || file.parent_path().filename() == "tensorboard";
}

// Without what a kind that leaves no mark before its result had begun: such work is put aside, not removed.
std::map<std::string, std::string> results_in(const Path& run) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const Path name = fs::relative(entry.path(), run);
    if (!entry.is_regular_file() || is_of_this_start(entry.path())) continue;
    if (name.begin()->string().find(".replaced") == std::string::npos)
      out[name.string()] = read_text(entry.path());
  }
  return out;
}

void expect_same_results(const Path& whole, const Path& killed) {
  const auto expected = results_in(whole), got = results_in(killed);
  for (const auto& [name, bytes] : expected) {
    const auto found = got.find(name);
    if (found == got.end())
      ADD_FAILURE() << killed << " lacks " << name;
    else
      EXPECT_TRUE(found->second == bytes) << killed << ": " << name << " differs";
  }
  for (const auto& [name, _] : got)
    EXPECT_TRUE(expected.contains(name)) << killed << " has " << name << " too";
}

// The first of the recipe's stages without a result: where a kill has hit.
std::string stage_at_work(const Path& run) {
  for (const char* stage : {"text", "teacher", "labels", "student", "rtn", "gptq", "packed", "qat", "gguf",
                            "values", "hf", "report", "sample"})
    if (!fs::exists(run / stage / "result.json")) return stage;
  return "the end";
}

// The ranks of one start, joined over TCP when they are several.
class Ranks {
 public:
  Ranks(int count, const Path& directory, const Path& text) {
    const int port = count > 1 ? testing::free_port() : 0;
    for (int rank = 0; rank < count; ++rank) {
      // The same words in every directory, since results name the teacher and the text by their paths.
      const std::string script =
          fmt::format("cd '{}' && exec '{}' run '{}' --set run.text='{}' --set run.dir=run",
                      directory.string(), binary().string(),
                      (testing::source_directory() / "tests/recipes/mini.yaml").string(), text.string());
      std::vector<std::string> command = {"env", "RETORT_COMM_TIMEOUT=30"};
      if (count > 1)
        for (const std::string& variable :
             {fmt::format("RANK={}", rank), fmt::format("WORLD_SIZE={}", count),
              fmt::format("MASTER_PORT={}", port), std::string("MASTER_ADDR=localhost")})
          command.push_back(variable);
      command.insert(command.end(), {"sh", "-c", script});
      log_.push_back(directory / fmt::format("rank{}", rank));
      processes_.push_back(std::make_unique<Process>(command, log_.back()));
    }
  }

  bool running() {  // until all have ended
    bool any = false;
    for (auto& process : processes_) any = process->running() || any;
    return any;
  }
  int size() const { return static_cast<int>(processes_.size()); }
  bool signal(int rank, int number) { return processes_[static_cast<size_t>(rank)]->signal(number); }
  bool kill(int rank) { return signal(rank, SIGKILL); }
  // Waits for all of them, which must end by themselves.
  std::vector<int> codes() {
    const auto late = Clock::now() + std::chrono::minutes(10);
    while (running() && Clock::now() < late) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_FALSE(running()) << "a rank hangs: " << said();
    std::vector<int> out;
    for (int rank = 0; rank < size(); ++rank) {
      if (running()) kill(rank);
      out.push_back(processes_[static_cast<size_t>(rank)]->wait());
    }
    return out;
  }
  std::string said() const {
    std::string out;
    for (const Path& log : log_)
      out += "\n" + log.filename().string() + ": " + read_text(log.string() + ".err");
    return out;
  }

 private:
  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<Path> log_;
};

struct Tally {
  int64_t kills = 0, of_one_rank = 0, stops = 0, starts = 0, whole_runs = 0;
  std::map<std::string, int64_t> by_stage;
};

class SlowRandomKills : public ::testing::Test {
 protected:
  SlowRandomKills() : random_(static_cast<uint64_t>(number_of("RETORT_KILL_SEED", 1))) {
    std::ofstream text(directory_ / "a.txt");
    for (int i = 0; i < 600; ++i)
      text << "In line " << i << " is " << i * i << ", and then comes the next.\n";
  }

  int64_t below(int64_t bound) { return std::uniform_int_distribution<int64_t>(0, bound - 1)(random_); }
  Path fresh(const std::string& name) {
    fs::create_directory(directory_ / name);
    return directory_ / name;
  }
  Ranks start(const Path& at) { return Ranks(1 << below(3), at, directory_ / "a.txt"); }

  // Kills the ranks at some moment within `horizon`; false when they had come to the end before.
  bool killed(Ranks& ranks, const Path& at, Clock::duration horizon) {
    ++tally_.starts;
    if (stops_) hold(ranks, Clock::duration(below(horizon.count())));
    wait_for(ranks, Clock::duration(below(horizon.count())));
    if (!ranks.running()) return false;
    const bool one = ranks.size() > 1 && below(2) == 0;
    const int victim = static_cast<int>(below(ranks.size()));
    for (int rank = 0; rank < ranks.size(); ++rank)
      if (!one || rank == victim) ranks.kill(rank);
    for (const int code : ranks.codes())  // whoever lost a peer says so; whoever was done is
      EXPECT_THAT(code, ::testing::AnyOf(0, 76, 128 + SIGKILL)) << ranks.said();
    ++tally_.kills;
    tally_.of_one_rank += one ? 1 : 0;
    ++tally_.by_stage[stage_at_work(at / "run")];
    return true;
  }

  static void wait_for(Ranks& ranks, Clock::duration time) {
    const auto moment = Clock::now() + time;
    while (Clock::now() < moment && ranks.running())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // One rank neither runs nor ends for up to three seconds, and then goes on, as do those that waited for it.
  void hold(Ranks& ranks, Clock::duration after) {
    wait_for(ranks, after);
    const int victim = static_cast<int>(below(ranks.size()));
    const auto pause = std::chrono::milliseconds(below(3000));
    if (!ranks.signal(victim, SIGSTOP)) return;
    std::this_thread::sleep_for(pause);
    ranks.signal(victim, SIGCONT);
    ++tally_.stops;
  }

  // Kills until there have been enough, and then lets the run come to its end.
  void kill_until(const std::function<bool()>& enough) {
    const auto began = Clock::now();
    Ranks undisturbed(1, fresh("whole"), directory_ / "a.txt");
    ASSERT_THAT(undisturbed.codes(), ::testing::Each(0)) << undisturbed.said();
    const auto horizon = Clock::now() - began;
    while (!enough() && !HasFailure()) {
      const Path at = fresh(fmt::format("killed-{}", tally_.whole_runs));
      while (!enough() && !HasFailure()) {
        Ranks ranks = start(at);
        if (killed(ranks, at, horizon)) continue;
        finish(std::move(ranks), at);
        break;
      }
      if (fs::exists(at) && !HasFailure()) finish(start(at), at);
    }
    report(Clock::now() - began);
  }

  void finish(Ranks ranks, const Path& at) {
    EXPECT_THAT(ranks.codes(), ::testing::Each(0)) << ranks.said();
    expect_same_results(directory_ / "whole/run", at / "run");
    ++tally_.whole_runs;
    fs::remove_all(at);
  }

  void report(Clock::duration taken) const {
    std::string stages;
    for (const auto& [stage, count] : tally_.by_stage) stages += fmt::format(" {} {}", stage, count);
    fmt::print(
        "{} kills ({} of one rank of several), {} stops, {} starts, {} runs to the end, {:.0f} s; hit while "
        "at "
        "work:{}\n",
        tally_.kills, tally_.of_one_rank, tally_.stops, tally_.starts, tally_.whole_runs,
        std::chrono::duration<double>(taken).count(), stages);
  }

  testing::TemporaryDirectory directory_;
  std::mt19937_64 random_;
  Tally tally_;
  bool stops_ = false;
};
using SlowSoak = SlowRandomKills;

}  // namespace

TEST_F(SlowRandomKills, EndInTheBytesOfAnUndisturbedRun) {
  const int64_t kills = number_of("RETORT_KILLS", 20);
  kill_until([&] { return tally_.kills >= kills; });
}

TEST_F(SlowSoak, KillsAndStopsEndInTheBytesOfAnUndisturbedRun) {
  const int64_t seconds = number_of("RETORT_SOAK_SECONDS", 0);
  if (seconds == 0) GTEST_SKIP() << "it takes ten minutes: scripts/kill_test.sh --soak";
  stops_ = true;
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  kill_until([&] { return Clock::now() >= end; });
  EXPECT_GT(tally_.kills, 0);
  EXPECT_GT(tally_.stops, 0);
}

}  // namespace retort::recipes
