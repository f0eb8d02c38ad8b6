#include "train/precision.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "models/weight_map.h"
#include "tests/testing.h"
#include "tests/train/captured_log.h"

namespace retort::train {
namespace {

struct Outcome {
  at::ScalarType dtype = at::kFloat;
  int measured = 0;
  std::string said;
};

Outcome choose(const std::string& precision, bool units, GemmRates rates) {
  CapturedLog log;
  CpuFeatures cpu;
  cpu.model = "a processor";
  cpu.avx512_bf16 = units;
  const auto comm = comm::make_self_comm();
  Outcome outcome;
  outcome.dtype = choose_precision(precision, *comm, *log, cpu, [&] { return ++outcome.measured, rates; });
  outcome.said = log.text();
  return outcome;
}

constexpr GemmRates kFastBf16{100, 400}, kSlowBf16{100, 8};

}  // namespace

TEST(Precision, AutoTakesBf16WhereItIsFaster) {
  EXPECT_EQ(choose("auto", true, kFastBf16).dtype, at::kBFloat16);
  EXPECT_EQ(choose("auto", true, kSlowBf16).dtype, at::kFloat);
  EXPECT_EQ(choose("auto", true, {100, 110}).dtype, at::kFloat);  // not worth the rounding
}

TEST(Precision, AutoDoesNotEvenMeasureWithoutUnits) {
  const Outcome outcome = choose("auto", false, kFastBf16);
  EXPECT_EQ(outcome.dtype, at::kFloat);
  EXPECT_EQ(outcome.measured, 0);
}

TEST(Precision, AnExplicitChoiceIsObeyed) {
  EXPECT_EQ(choose("fp32", true, kFastBf16).dtype, at::kFloat);
  EXPECT_EQ(choose("bf16", true, kFastBf16).said, "");
  const Outcome slow = choose("bf16", false, kSlowBf16);
  EXPECT_EQ(slow.dtype, at::kBFloat16);
  for (const char* word : {"warning", "a processor", " 8 GFLOP/s", "100", "auto"})
    EXPECT_NE(slow.said.find(word), std::string::npos) << word << " in " << slow.said;
}

TEST(Precision, RefusesAnUnknownName) { EXPECT_THROW(choose("fp16", true, kFastBf16), ConfigError); }

TEST(Precision, RanksAgreeWithRankZero) {
  comm::run_thread_ranks(3, [](comm::Comm& comm) {
    Log log(stderr, "", /*quiet=*/true);
    CpuFeatures cpu;
    cpu.avx512_bf16 = true;
    const GemmRates rates = comm.rank() == 0 ? kFastBf16 : kSlowBf16;
    EXPECT_EQ(choose_precision("auto", comm, log, cpu, [&] { return rates; }), at::kBFloat16);
  });
}

TEST(Precision, MeasuredRatesArePositiveAndNamesFollowTheWorkingCopies) {
  const GemmRates rates = measure_gemm_rates();
  EXPECT_GT(rates.fp32, 0);
  EXPECT_GT(rates.bf16, 0);
  models::Parameters parameters;
  parameters.add("matrix", {4, 4}, models::Role::kMatrix).master.zero_();
  models::IdentityMap map;
  models::bind_working(parameters, map, at::kFloat);
  EXPECT_EQ(precision_of(parameters), "fp32");
  models::bind_working(parameters, map, at::kBFloat16);
  EXPECT_EQ(precision_of(parameters), "bf16");
}

}  // namespace retort::train
