// What goes wrong with processes: tests/comm/fault_rank.cpp is each of them, over TCP as torchrun starts it or under mpirun.
// A rank's own record says how long the collective that failed had lasted.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <regex>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "tests/comm/free_port.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kTimeout = 3, kGrace = 2;  // seconds: until a rank is named

using Words = std::vector<std::string>;
using Variables = std::map<std::string, std::string>;

class Faults : public ::testing::Test {
 protected:
  // What outlives a test ends with it.
  ~Faults() override {
    for (const auto& [pid, ended] : processes_)
      if (!ended) {
        ::kill(-pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
      }
  }

  // Starts a program in a process group of its own; it writes to the file `log`.
  pid_t start(const Words& words, const Variables& variables, const std::string& log) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::setpgid(0, 0);
      const int out = ::open(path(log).c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0666);
      ::dup2(out, STDOUT_FILENO);
      ::dup2(out, STDERR_FILENO);
      for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
      ::execvp(arguments[0], arguments.data());
      ::_exit(127);
    }
    ::setpgid(pid, pid);
    processes_[pid] = false;
    return pid;
  }

  // Ranks over TCP, as torchrun's environment tells them. `before`: words that start the program.
  void start_tcp(int ranks, const std::string& what) {
    const int port = free_port();
    for (int rank = 0; rank < ranks; ++rank) ranks_.push_back(start_rank(rank, ranks, port, what));
    await_all(ranks);
  }
  pid_t start_rank(int rank, int ranks, int port, const std::string& what, Words before = {},
                   const std::string& host = "localhost") {
    before.insert(before.end(), {program(), folder_.path().string(), what, "tcp"});
    return start(before,
                 {{"RANK", std::to_string(rank)},
                  {"WORLD_SIZE", std::to_string(ranks)},
                  {"MASTER_ADDR", host},
                  {"MASTER_PORT", std::to_string(port)},
                  {"RETORT_COMM_TIMEOUT", fmt::format("{:g}", kTimeout)}},
                 fmt::format("log-{}", rank));
  }
  pid_t start_mpi(int ranks, const std::string& what) {
    const pid_t pid = start({"mpirun", "--oversubscribe", "--bind-to", "none", "-n", std::to_string(ranks),
                             program(), folder_.path().string(), what},
                            {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                             {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                             {"RETORT_MPI_PLUGIN", mpi_library()},
                             {"RETORT_COMM_TIMEOUT", fmt::format("{:g}", kTimeout)}},
                            "log");
    await_all(ranks);
    return pid;
  }

  // Until all ranks have joined.
  void await_all(int ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      const Path file = path(fmt::format("pid-{}", rank));
      for (int nap = 0; nap < 1200 && !std::filesystem::exists(file); ++nap) rest(0.05);
      ASSERT_TRUE(std::filesystem::exists(file)) << "rank " << rank << " has not come";
    }
  }
  pid_t pid_of(int rank) const { return std::stoi(read_text(path(fmt::format("pid-{}", rank)))); }

  // Also not of a process that has ended and waits for a parent to ask.
  static bool lives(pid_t pid) {
    std::ifstream status(fmt::format("/proc/{}/stat", pid));
    std::string number, name, state;
    return status >> number >> name >> state && state != "Z";
  }

  // The exit code of a process, 128 and the signal for one that a signal has ended.
  int end_of(pid_t pid) {
    int status = 0;
    for (int nap = 0; nap < 1200; ++nap) {
      if (::waitpid(pid, &status, WNOHANG) == pid) {
        processes_[pid] = true;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      rest(0.05);
    }
    ADD_FAILURE() << "process " << pid << " does not end";
    return -1;
  }

  std::string said(const std::string& log) const { return read_text(path(log)); }
  std::string record(int rank) const { return read_text(path(fmt::format("flight-rank-{}.json", rank))); }
  // How long the collective that failed had lasted.
  static double lasted(const std::string& record) {
    std::smatch failed, started;
    static const std::regex kFailed(R"("failed": ([0-9.]+))"),
        kStarted(R"("started": ([0-9.]+), "ended": null\}\])");
    if (!std::regex_search(record, failed, kFailed) || !std::regex_search(record, started, kStarted))
      return 1e9;
    return std::stod(failed[1]) - std::stod(started[1]);
  }
  // All but rank 1 have ended with 76 in time, and say what of whom they have waited for.
  void expect_named_by_others(const std::string& operation, const std::string& reason) {
    for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
      if (rank == 1) continue;
      EXPECT_EQ(end_of(ranks_[static_cast<size_t>(rank)]), 76) << said(fmt::format("log-{}", rank));
      EXPECT_THAT(said(fmt::format("log-{}", rank)), AllOf(HasSubstr(operation), HasSubstr(reason)));
      EXPECT_THAT(record(rank), AllOf(HasSubstr(operation), HasSubstr(reason)));
      EXPECT_LT(lasted(record(rank)), kTimeout + kGrace);
    }
  }

  // Both ranks have ended with 76, and each says what both have called.
  void expect_both_named(const std::string& first, const std::string& second) {
    for (const int rank : {0, 1}) {
      EXPECT_EQ(end_of(ranks_[static_cast<size_t>(rank)]), 76);
      EXPECT_THAT(said(fmt::format("log-{}", rank)), AllOf(HasSubstr(first), HasSubstr(second)));
    }
  }

  // The same of ranks under mpirun, of which the first to find out may end the other before it can speak.
  void expect_both_named_under_mpirun(const std::string& what, const std::string& first,
                                      const std::string& second) {
    if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
    EXPECT_EQ(end_of(start_mpi(2, what)), 76) << said("log");
    EXPECT_THAT(said("log"),
                AllOf(HasSubstr("ranks call different collectives: "), HasSubstr(first), HasSubstr(second)));
  }

  static std::string program() { return RETORT_FAULT_RANK; }
  static std::string mpi_library() { return std::string(RETORT_PROGRAMS) + "/libretort_mpi.so"; }
  static bool has_mpirun() {
    return std::filesystem::exists(mpi_library()) && std::system("command -v mpirun >/dev/null") == 0;
  }
  static void rest(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }
  Path path(const std::string& name) const { return folder_.path() / name; }

  const testing::TemporaryDirectory folder_;
  std::vector<pid_t> ranks_;
  std::map<pid_t, bool> processes_;  // and whether they have ended
};

}  // namespace

TEST_F(Faults, Fault07ARankThatHangsIsNamedByAllOthersInTime) {
  start_tcp(4, "hang");
  expect_named_by_others("all_reduce sum of 2000 Float (number 41)", "waited 3 s for rank 1");
}

TEST_F(Faults, Fault07AStoppedRankIsNamedByAllOthersInTime) {
  start_tcp(4, "steps");
  rest(0.3);
  ::kill(pid_of(1), SIGSTOP);
  expect_named_by_others("(number", "waited 3 s for rank 1");
}

// Its main thread works alone, which may last, but the process gives no sign of life any more.
TEST_F(Faults, Fault07AStoppedRankEndsABarrierInTime) {
  start_tcp(3, "alone");
  rest(2 * kTimeout);
  EXPECT_FALSE(std::filesystem::exists(path("flight-rank-0.json"))) << "it lives, and the others wait";
  const auto stopped = std::chrono::system_clock::now().time_since_epoch();
  ::kill(pid_of(1), SIGSTOP);
  for (const int rank : {0, 2}) {
    EXPECT_EQ(end_of(ranks_[static_cast<size_t>(rank)]), 76);
    EXPECT_THAT(said(fmt::format("log-{}", rank)),
                HasSubstr("barrier (number 41) waited 3 s for rank 1, which gave no sign"));
    std::smatch failed;
    const std::string text = record(rank);
    ASSERT_TRUE(std::regex_search(text, failed, std::regex(R"("failed": ([0-9.]+))")));
    EXPECT_LT(std::stod(failed[1]) - std::chrono::duration<double>(stopped).count(), kTimeout + kGrace);
  }
}

TEST_F(Faults, Fault07AKilledRankIsNamedByAllOthersInTime) {
  start_tcp(4, "steps");
  rest(0.3);
  ::kill(pid_of(1), SIGKILL);
  expect_named_by_others("(number", "rank 1");
}

TEST_F(Faults, Fault07AStoppedRankUnderMpirunIsNamed) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const pid_t launcher = start_mpi(4, "steps");
  rest(0.3);
  ::kill(pid_of(1), SIGSTOP);
  EXPECT_EQ(end_of(launcher), 76) << said("log");
  EXPECT_THAT(said("log"), AllOf(HasSubstr("(number"), HasSubstr("waited 3 s for rank 1 (")));
}

TEST_F(Faults, Fault07AStoppedRankEndsABarrierUnderMpirun) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const pid_t launcher = start_mpi(4, "alone");
  rest(2 * kTimeout);
  EXPECT_FALSE(std::filesystem::exists(path("flight-rank-0.json"))) << said("log");
  ::kill(pid_of(1), SIGSTOP);
  EXPECT_EQ(end_of(launcher), 76) << said("log");
  EXPECT_THAT(said("log"),
              HasSubstr("barrier (number 41) waited 3 s for rank 1, which gave no sign of life"));
}

TEST_F(Faults, Fault07AKilledRankUnderMpirunEndsAll) {
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  const pid_t launcher = start_mpi(4, "steps");
  std::vector<pid_t> pids;
  for (int rank = 0; rank < 4; ++rank) pids.push_back(pid_of(rank));
  ::kill(pids[1], SIGKILL);
  EXPECT_EQ(end_of(launcher), 128 + SIGKILL);
  for (int nap = 0; nap < 200 && std::ranges::any_of(pids, lives); ++nap) rest(0.05);
  EXPECT_FALSE(std::ranges::any_of(pids, lives));
}

TEST_F(Faults, Fault08ACollectiveLeftOutIsNamedOnBothSides) {
  start_tcp(2, "skip");
  expect_both_named("rank 0 all_reduce sum of 2000 Float (number 41)",
                    "rank 1 broadcast from rank 0 of 8 Float (number 41)");
}

TEST_F(Faults, Fault08ACollectiveOfAnotherSizeIsNamedOnBothSides) {
  start_tcp(2, "size");
  expect_both_named("rank 0 all_reduce sum of 2000 Float (number 41)",
                    "rank 1 all_reduce sum of 2001 Float (number 41)");
}

TEST_F(Faults, Fault08ACollectiveLeftOutUnderMpirunIsNamedOnBothSides) {
  expect_both_named_under_mpirun("skip", "rank 0 all_reduce sum of 2000 Float (number 41)",
                                 "rank 1 broadcast from rank 0 of 8 Float (number 41)");
}

TEST_F(Faults, Fault08ACollectiveOfAnotherSizeUnderMpirunIsNamedOnBothSides) {
  expect_both_named_under_mpirun("size", "rank 0 all_reduce sum of 2000 Float (number 41)",
                                 "rank 1 all_reduce sum of 2001 Float (number 41)");
}

TEST_F(Faults, Fault35RanksComeUpUnderEveryLauncher) {
  EXPECT_EQ(end_of(start({program(), folder_.path().string(), "none"}, {}, "alone")), 0) << said("alone");
  start_tcp(3, "none");
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_EQ(end_of(ranks_[static_cast<size_t>(rank)]), 0) << said(fmt::format("log-{}", rank));
  if (!has_mpirun()) GTEST_SKIP() << "no mpirun";
  for (int rank = 0; rank < 3; ++rank) std::filesystem::remove(path(fmt::format("pid-{}", rank)));
  EXPECT_EQ(end_of(start_mpi(2, "none")), 0) << said("log");
}

// A program starts where there is no libmpi; under a launcher of MPI it says what is missing.
TEST_F(Faults, Fault35WithoutMpiAProgramStartsAndSaysWhatIsMissing) {
  const std::string needed = "readelf -d '" + program() + "' | grep -q 'NEEDED.*";
  EXPECT_EQ(std::system((needed + "libtorch_cpu'").c_str()), 0);
  EXPECT_NE(std::system((needed + "libmpi'").c_str()), 0);
  const Words words{program(), folder_.path().string(), "none"};
  EXPECT_EQ(
      end_of(start(words, {{"OMPI_COMM_WORLD_SIZE", "2"}, {"RETORT_MPI_PLUGIN", "/nowhere/x.so"}}, "none")),
      2);
  EXPECT_THAT(said("none"),
              AllOf(HasSubstr("MPI is needed (OMPI_COMM_WORLD_SIZE=2)"), HasSubstr("no /nowhere/x.so")));
  std::ofstream(path("torn.so")) << "no library";
  EXPECT_EQ(
      end_of(start(words, {{"OMPI_COMM_WORLD_SIZE", "2"}, {"RETORT_MPI_PLUGIN", path("torn.so")}}, "torn")),
      2);
  EXPECT_THAT(said("torn"), HasSubstr("torn.so: "));
}

TEST_F(Faults, Fault35AnotherPortIsNamed) {
  const int port = free_port();
  const pid_t first = start_rank(0, 2, port, "none"), second = start_rank(1, 2, free_port(), "none");
  EXPECT_EQ(end_of(first), 76);
  EXPECT_EQ(end_of(second), 76);
  EXPECT_THAT(said("log-0"), HasSubstr("rank 0 waited 3 s for rank 1 to connect"));
  EXPECT_THAT(said("log-1"), HasSubstr("[tcp]"));
}

TEST_F(Faults, Fault35AMissingRankIsNamed) {
  const int port = free_port();
  std::vector<pid_t> pids;
  for (const int rank : {0, 1, 3}) pids.push_back(start_rank(rank, 4, port, "none"));
  for (const pid_t pid : pids) EXPECT_EQ(end_of(pid), 76);
  for (const int rank : {0, 1, 3}) EXPECT_THAT(said(fmt::format("log-{}", rank)), HasSubstr("2"));
  EXPECT_THAT(said("log-0"), HasSubstr("rank 0 waited 3 s for rank 2 to connect"));
}

TEST_F(Faults, Fault35TwoProcessesOfOneRankAreNamed) {
  const int port = free_port();
  const pid_t first = start_rank(0, 3, port, "none");
  std::vector<pid_t> twins{start_rank(1, 3, port, "none"), start_rank(1, 3, port, "none")};
  EXPECT_EQ(end_of(first), 76);
  EXPECT_THAT(said("log-0"), HasSubstr("two processes have joined as rank 1"));
  for (const pid_t pid : twins) EXPECT_EQ(end_of(pid), 76);
}

// Two machines are two network namespaces of this one, and the line between them goes.
TEST_F(Faults, AVanishedMachineIsNamedInTime) {
  const std::string id = std::to_string(::getpid());
  const std::string near = "ra" + id, far = "rb" + id, line = "rv" + id;
  const auto ip = [&](const std::string& words) {
    return std::system(("ip " + words + " 2>/dev/null").c_str()) == 0;
  };
  const std::shared_ptr<void> cleared(nullptr,
                                      [&](void*) { ip("netns del " + near), ip("netns del " + far); });
  if (!ip("netns add " + near) || !ip("netns add " + far) ||
      !ip("link add " + line + "a netns " + near + " type veth peer name " + line + "b netns " + far))
    GTEST_SKIP() << "network namespaces need Debian's iproute2 and the right to make them";
  for (const std::string& here : {near, far}) ip("-n " + here + " link set lo up");
  ASSERT_TRUE(ip("-n " + near + " addr add 10.213.7.1/24 dev " + line + "a") &&
              ip("-n " + near + " link set " + line + "a up"));
  ASSERT_TRUE(ip("-n " + far + " addr add 10.213.7.2/24 dev " + line + "b") &&
              ip("-n " + far + " link set " + line + "b up"));
  const int port = 29613;
  ranks_ = {start_rank(0, 2, port, "steps", {"ip", "netns", "exec", near}, "10.213.7.1"),
            start_rank(1, 2, port, "steps", {"ip", "netns", "exec", far}, "10.213.7.1")};
  await_all(2);
  rest(0.3);
  ASSERT_TRUE(ip("-n " + far + " link set " + line + "b down"));
  expect_named_by_others("(number", "rank 1");
}

}  // namespace retort::comm
