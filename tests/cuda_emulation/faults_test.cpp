// Faults that were planted in small kernels (faults/), and who reports them: the scheduler in every build, the
// sanitizers in the programs that are built with them whatever the preset, or a wrong result.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace retort::emulation {
namespace {

struct Outcome {
  int status;
  std::string output;
};

Outcome run(const std::string& flavour, const std::string& fault) {
  const std::string command =
      "ASAN_OPTIONS=detect_leaks=0:exitcode=23 TSAN_OPTIONS=exitcode=66 UBSAN_OPTIONS=halt_on_error=1 " +
      std::string(RETORT_FAULTS) + flavour + " " + fault + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {-1, "popen failed"};
  std::string output;
  std::array<char, 4096> buffer;
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
    output.append(buffer.data(), count);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

// gcc 12's sanitizers cannot map their shadow under some kernels' address randomisation.
bool cannot_start(const Outcome& outcome) {
  return outcome.output.find("unexpected memory mapping") != std::string::npos ||
         outcome.output.find("Shadow memory range interleaves") != std::string::npos;
}

struct Case {
  const char *fault, *flavour;
  int status;  // 0 nothing found, 3 the emulation, 4 a wrong result, 23 ASan, 66 TSan, 1 UBSan
  std::vector<const char*> says;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.fault << " " << c.flavour; }

class Faults : public ::testing::TestWithParam<Case> {};

TEST_P(Faults, IsReported) {
  const Case& c = GetParam();
  const Outcome outcome = run(c.flavour, c.fault);
  if (cannot_start(outcome))
    GTEST_SKIP() << "the sanitizer cannot start here: " << outcome.output.substr(0, 200);
  EXPECT_EQ(outcome.status, c.status) << outcome.output;
  for (const char* words : c.says)
    EXPECT_NE(outcome.output.find(words), std::string::npos) << words << "\nis not in\n" << outcome.output;
}

constexpr int kNothing = 0, kUbsan = 1, kScheduler = 3, kResult = 4, kAsan = 23, kTsan = 66;

const Case kCases[] = {
    {"no_fault", "plain", kNothing, {}},
    {"no_fault", "asan", kNothing, {}},
    {"no_fault", "tsan", kNothing, {}},

    {"missing_barrier", "plain", kResult, {"nan for 8", "forward"}},
    {"missing_barrier", "tsan", kTsan, {"data race", "missing_barrier.cu:8", "missing_barrier.cu:10"}},
    {"reused_array", "plain", kResult, {"for 24", "in reverse"}},
    {"reused_array", "tsan", kTsan, {"data race", "reused_array.cu"}},
    {"loop_too_long", "asan", kAsan, {"heap-buffer-overflow", "loop_too_long.cu:8"}},
    {"short_array",
     "plain",
     kScheduler,
     {"index out of an array's bounds by thread 224", "short_array.cu:8"}},
    {"short_array", "asan", kUbsan, {"index 7 out of bounds", "short_array.cu:8"}},
    {"dynamic_too_short", "plain", kScheduler, {"written past the end of dynamic shared memory"}},
    {"dynamic_too_short", "asan", kAsan, {"use-after-poison", "dynamic_too_short.cu:8"}},
    {"too_much_shared", "plain", kScheduler, {"more shared memory than a block has", "too_much_shared.cu:7"}},
    {"unasked_shared", "plain", kScheduler, {"more shared memory than a block has", "unasked_shared.cu:7"}},
    {"unset_shared", "plain", kResult, {"nan for 1"}},
    {"divergent_barrier",
     "plain",
     kScheduler,
     {"divergent barrier: threads 0-127 wait", "divergent_barrier.cu:9", "threads 128-255 wait",
      "divergent_barrier.cu:12", "block (0, 0, 0)"}},
    {"exited_thread",
     "plain",
     kScheduler,
     {"threads 0-199 wait", "exited_thread.cu:9", "threads 200-255 have left the kernel"}},
    {"mask_without_lane",
     "plain",
     kScheduler,
     {"leaves out its own lane by thread 16", "mask_without_lane.cu:6"}},
    {"shuffle_from_outside", "plain", kScheduler, {"shuffle from lane 16", "shuffle_from_outside.cu:7"}},
    {"shuffle_in_branch",
     "plain",
     kScheduler,
     {"lanes that wait in vain", "shuffle_in_branch.cu:8", "threads 1, 3", "shuffle_in_branch.cu:9"}},
    {"warps_race", "tsan", kTsan, {"data race", "warps_race.cu:8"}},
    {"lanes_race", "tsan", kTsan, {"data race", "lanes_race.cu:6"}},
    {"missing_warp_barrier", "tsan", kTsan, {"data race", "missing_warp_barrier.cu:8"}},
    {"missing_tail", "plain", kResult, {"nan for 1"}},
    {"unaligned_run", "plain", kScheduler, {"misaligned access to global memory by thread 0", "device.cuh"}},
    {"unaligned_vector", "plain", kScheduler, {"misaligned access by thread 1", "unaligned_vector.cu:7"}},
    {"unaligned_vector", "asan", kUbsan, {"misaligned address", "unaligned_vector.cu:7"}},
    {"across_blocks", "tsan", kTsan, {"data race", "across_blocks.cu:8"}},
    {"atomics_in_turn", "plain", kResult, {"wrong result"}},
};

INSTANTIATE_TEST_SUITE_P(Planted, Faults, ::testing::ValuesIn(kCases), [](const auto& info) {
  return std::string(info.param.fault) + "_" + info.param.flavour;
});

}  // namespace
}  // namespace retort::emulation
