// The public operations, forward and backward, as each kind of processor runs them. Loops and products are chosen once a
// process, so the suites that hold the operations to fp64 run again in a child that $RETORT_CPU (core/cpu.h) has take this
// processor for another. AdamW and the norm of gradients have code for AVX2 alone, and grids that of core/each_target.h.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "kernels/cpu/table.h"

namespace retort::kernels {
namespace {

// The last names the loops that were chosen.
constexpr const char* kSuites[] = {"AddRmsNorm",
                                   "RmsNorm",
                                   "LayerNorm",
                                   "Activation",
                                   "Rope",
                                   "Attention",
                                   "Bf16Product",
                                   "LinearProducts",
                                   "ProductSum",
                                   "Product",
                                   "ThinProduct",
                                   "LinearCrossEntropy",
                                   "LinearTokenLosses",
                                   "LinearDistill",
                                   "Divergences",
                                   "SparseCrossEntropy",
                                   "CpuTable"};
// LibTorch's own libraries are held to AVX2 as well, as beside them bounds are computed.
std::string environment_of(const std::string& processor) {
  const char* const libraries =
      processor == "avx2" ? "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2"
                          : "";
  return fmt::format("RETORT_CPU={} {}", processor, libraries);
}

// What those suites print in a child, and how it ends.
struct Ended {
  int status = -1;
  std::string output = {};
};
Ended run_as(const std::string& processor) {
  std::string filter;
  for (const char* suite : kSuites) filter += fmt::format("{}.*:", suite);
  const std::string command = fmt::format("{} '{}' --gtest_filter='{}' 2>&1", environment_of(processor),
                                          std::filesystem::read_symlink("/proc/self/exe").string(), filter);
  Ended out;
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  char part[4096];
  while (const size_t count = std::fread(part, 1, sizeof part, pipe)) out.output.append(part, count);
  out.status = ::pclose(pipe);
  return out;
}

class Processors : public ::testing::TestWithParam<const char*> {};

}  // namespace

TEST_P(Processors, HoldPublicOperationsToTheirBounds) {
  if (std::string(GetParam()) == "avx512" && cpu::all_cpu_tables().size() < 2)
    GTEST_SKIP() << "this processor has no AVX-512";
  const Ended ended = run_as(GetParam());
  EXPECT_EQ(ended.status, 0) << ended.output;
  for (const char* suite : kSuites)
    EXPECT_THAT(ended.output, ::testing::ContainsRegex(fmt::format(" tests? from {}\n", suite)));
  EXPECT_THAT(ended.output, ::testing::Not(::testing::HasSubstr("SKIPPED")));
}

INSTANTIATE_TEST_SUITE_P(OfEachKind, Processors, ::testing::Values("avx2", "avx512", "amx"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace retort::kernels
