// Runs of small tasks; tests/recipes/described_tasks_test.cpp compares the harness' own.
#include "eval/run_task.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "core/file.h"
#include "tests/eval/models.h"
#include "tests/eval/small_task.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using retort::testing::make_decoder;

class RunTask : public ::testing::TestWithParam<const char*> {
 protected:
  RunTask() { testing::write_small_task(directory_.path()); }
  TaskSpec spec() const { return testing::small_task(GetParam(), 12); }
  TaskResult run(comm::Comm& comm) const {
    const auto model = make_decoder(256, 96);
    const auto tokenizer = data::make_byte_tokenizer();
    return run_task(spec(), {.model = *model,
                             .tokenizer = *tokenizer,
                             .comm = comm,
                             .prompts = {.folder = directory_.path()},
                             .resamples = 200});
  }
  testing::TemporaryDirectory directory_;
};

}  // namespace

TEST_P(RunTask, GivesTheSameBitsOnAnyRanks) {
  const testing::Threads one_thread(1);
  const TaskResult alone = run(*comm::make_self_comm());
  EXPECT_EQ(alone.documents, 9);
  ASSERT_FALSE(alone.metrics.empty());
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      const TaskResult mine = run(comm);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(mine.answers, alone.answers);
      EXPECT_EQ(mine.generated, alone.generated);
      ASSERT_EQ(mine.metrics.size(), alone.metrics.size());
      for (size_t m = 0; m < mine.metrics.size(); ++m) {
        EXPECT_EQ(mine.metrics[m].scores, alone.metrics[m].scores);
        EXPECT_EQ(mine.metrics[m].value, alone.metrics[m].value);
      }
    });
  }
}

// Those of lm-evaluation-harness for a description that names none.
TEST_P(RunTask, HasMetricsOfItsOutputType) {
  std::vector<std::string> names;
  for (const MetricResult& metric : run(*comm::make_self_comm()).metrics) {
    names.push_back(metric.name());
    EXPECT_TRUE(std::isfinite(metric.value)) << metric.name();
  }
  const std::map<std::string, std::vector<std::string>> expected = {
      {"multiple_choice", {"acc,none", "acc_norm,none"}},
      {"loglikelihood", {"perplexity,none", "acc,none"}},
      {"loglikelihood_rolling", {"word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none"}},
      {"generate_until", {"exact_match,none"}}};
  EXPECT_EQ(names, expected.at(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(All, RunTask,
                         ::testing::Values("multiple_choice", "loglikelihood", "loglikelihood_rolling",
                                           "generate_until"),
                         [](const auto& one) { return std::string(one.param); });

}  // namespace retort::eval
