#include "train/precision.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "models/weight_map.h"
#include "tests/testing.h"
#include "tests/train/captured_log.h"

namespace retort::train {
namespace {

const kernels::CpuTuning kFastBf16{"MKL", 2, 100, 400, true, true};
const kernels::CpuTuning kSlowBf16{"MKL", 2, 100, 140, true, false};  // whatever it measures
const kernels::CpuTuning kNoUnits{"MKL", 2, 100, 8, false, false};

struct Outcome {
  at::ScalarType dtype = at::kFloat;
  int measured = 0;
  std::string said;
};

Outcome choose(const std::string& precision, const kernels::CpuTuning& cpu) {
  CapturedLog log;
  const auto comm = comm::make_self_comm();
  Outcome outcome;
  outcome.dtype = choose_precision(precision, *comm, *log, [&] { return ++outcome.measured, cpu; });
  outcome.said = log.text();
  return outcome;
}

}  // namespace

TEST(Precision, AutoTakesBf16WhereItIsFaster) {
  EXPECT_EQ(choose("auto", kFastBf16).dtype, at::kBFloat16);
  EXPECT_EQ(choose("auto", kSlowBf16).dtype, at::kFloat);
  EXPECT_EQ(choose("auto", kNoUnits).dtype, at::kFloat);
  EXPECT_NE(choose("auto", kFastBf16).said.find("400"), std::string::npos);
}

TEST(Precision, AnExplicitChoiceIsObeyed) {
  EXPECT_EQ(choose("fp32", kFastBf16).dtype, at::kFloat);
  EXPECT_EQ(choose("fp32", kFastBf16).measured, 0);
  EXPECT_EQ(choose("bf16", kSlowBf16).said, "");
  const Outcome slow = choose("bf16", kNoUnits);
  EXPECT_EQ(slow.dtype, at::kBFloat16);
  for (const char* word : {"warning", " 8 GF", "100", "auto"})
    EXPECT_NE(slow.said.find(word), std::string::npos) << word << " in " << slow.said;
}

TEST(Precision, RefusesAnUnknownName) { EXPECT_THROW(choose("fp16", kFastBf16), ConfigError); }

TEST(Precision, RanksAgreeWithRankZero) {
  comm::run_thread_ranks(3, [](comm::Comm& comm) {
    Log log(stderr, "", /*quiet=*/true);
    const kernels::CpuTuning& cpu = comm.rank() == 0 ? kFastBf16 : kSlowBf16;
    EXPECT_EQ(choose_precision("auto", comm, log, [&] { return cpu; }), at::kBFloat16);
  });
}

TEST(Precision, IsNamedAfterTheWorkingCopies) {
  models::Parameters parameters;
  parameters.add("matrix", {4, 4}, models::Role::kMatrix).master.zero_();
  models::IdentityMap map;
  models::bind_working(parameters, map, at::kFloat);
  EXPECT_EQ(precision_of(parameters), "fp32");
  models::bind_working(parameters, map, at::kBFloat16);
  EXPECT_EQ(precision_of(parameters), "bf16");
}

}  // namespace retort::train
