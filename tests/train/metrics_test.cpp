#include "train/metrics.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "tests/testing.h"
#include "tests/train/captured_log.h"
#include "tests/train/faulty_files.h"

namespace retort::train {
namespace {

const MetricsOptions kOptions{20, 5, 64.0, {"ce", "kl"}};

StepStats stats_of(int64_t step) {
  StepStats stats;
  stats.step = step;
  stats.loss = 3.0 / static_cast<double>(step + 1);
  stats.parts = {stats.loss, 0.25};
  stats.gradient_norm = 1.5;
  stats.lr = 1e-3;
  stats.counted = 60;
  return stats;
}

void take_steps(Metrics& metrics, int64_t first, int64_t last) {
  for (int64_t s = first; s < last; ++s)
    metrics.step(stats_of(s), {64 * (s + 1), 0.5, {{"text", 0.25 * (s + 1)}}});
}

std::string lines(const Path& directory) { return read_text(directory / "metrics.jsonl"); }

// What an undisturbed run of 20 steps writes.
std::string undisturbed() {
  testing::TemporaryDirectory run;
  CapturedLog log;
  Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
  take_steps(metrics, 0, 20);
  return lines(run.path());
}

int64_t count(const std::string& text, const std::string& word) {
  int64_t found = 0;
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++found;
  return found;
}

std::string events(const Path& directory) {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator(directory / "tensorboard"))
    all += read_text(entry.path());
  return all;
}

}  // namespace

// Of what all devices reach in products, since this process began.
TEST(Metrics, TellsTheShareOfTheCeiling) {
  const testing::TemporaryDirectory run;
  CapturedLog log;
  MetricsOptions options = kOptions;
  options.steps = 3, options.log_every = 1, options.flops_per_token = 1e9, options.ceiling = 256e9;
  options.tokens = 640, options.seconds = 7;  // before it
  Metrics metrics(quick_files(), *log, run.path(), 0, options);
  for (int64_t s = 0; s < 3; ++s)
    metrics.step(stats_of(s), {640 + 64 * (s + 1), 7 + 0.5 * static_cast<double>(s + 1), {}});
  metrics.finish();
  EXPECT_TRUE(log.says("loss 1.0000  50 % of 256 GFLOP/s")) << log.text();
}

TEST(Metrics, WritesALineEveryFewSteps) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
  take_steps(metrics, 0, 7);
  EXPECT_EQ(lines(run.path()),
            "{\"step\":5,\"loss\":0.6,\"ce\":0.6,\"kl\":0.25,\"gradient_norm\":1.5,\"lr\":0.001,"
            "\"labels\":60,\"tokens\":320,\"epochs\":{\"text\":1.25}}\n");
  metrics.validation(7, {{"loss", 2.5}});
  EXPECT_TRUE(log.says("validation") && log.says("2.5000")) << log.text();
  EXPECT_NE(lines(run.path()).find("{\"step\":7,\"validation\":{\"loss\":2.5}}\n"), std::string::npos);
}

// An objective that compares pairs has no mean over labels.
TEST(Metrics, NamesWhatTheObjectiveCounts) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  MetricsOptions options = kOptions;
  options.counted = "pairs";
  Metrics metrics(quick_files(), *log, run.path(), 0, options);
  take_steps(metrics, 0, 5);
  EXPECT_EQ(count(lines(run.path()), "\"pairs\":60"), 1);
  EXPECT_EQ(count(lines(run.path()), "labels"), 0);
}

TEST(Metrics, TheNonFiniteIsNullAndASkippedStepAlwaysSaysSo) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
  StepStats stats = stats_of(2);
  stats.loss = std::numeric_limits<double>::quiet_NaN();
  stats.skipped = true;
  metrics.step(stats, {192, 0.1, {}});
  EXPECT_NE(lines(run.path()).find("\"loss\":null"), std::string::npos);
  EXPECT_NE(lines(run.path()).find("\"skipped\":true"), std::string::npos);
}

// No 0.0 where nothing was measured.
TEST(Metrics, AStepWithoutLabelsHasNoFigures) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
  StepStats stats;
  stats.step = 4;
  stats.lr = 1e-3;
  metrics.step(stats, {320, 0.5, {}});
  metrics.finish();
  EXPECT_EQ(lines(run.path()), "{\"step\":5,\"lr\":0.001,\"labels\":0,\"tokens\":320}\n");
  EXPECT_TRUE(log.says("loss -")) << log.text();
}

TEST(Metrics, ContinuesBehindTheCheckpointWithoutDuplicates) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  {
    Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
    take_steps(metrics, 0, 17);  // 5, 10, 15; the checkpoint was at 10
  }
  std::ofstream(run / "metrics.jsonl", std::ios::app) << "{\"step\":2";  // killed in the middle of a line
  Metrics metrics(quick_files(), *log, run.path(), 10, kOptions);
  take_steps(metrics, 10, 20);
  EXPECT_EQ(lines(run.path()), undisturbed());
  EXPECT_EQ(count(events(run.path()), "train/loss"), 4);  // rewritten: 5, 10, 15, 20, each once
}

TEST(Metrics, RatesCountFromWhereARunContinues) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  MetricsOptions options = kOptions;
  options.tokens = 640;
  options.seconds = 100.0;
  Metrics metrics(quick_files(), *log, run.path(), 10, options);
  metrics.step(stats_of(14), {960, 102.0, {}});
  const std::string all = events(run.path()), name = "train/tokens_per_second";
  const size_t at = all.find(name);
  ASSERT_NE(at, std::string::npos);
  float rate = 0;
  std::memcpy(&rate, all.data() + at + name.size() + 1, sizeof(rate));  // after the field's number
  EXPECT_EQ(rate, 160.0f);
}

TEST(Metrics, KnowsWhichValidationIsThere) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  {
    Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
    EXPECT_FALSE(metrics.has_validation(0));
    take_steps(metrics, 0, 5);
    metrics.validation(5, {{"loss", 2.0}});
    take_steps(metrics, 5, 10);
    metrics.validation(10, {{"loss", 1.0}});
  }
  const Metrics five(quick_files(), *log, run.path(), 5, kOptions);
  EXPECT_TRUE(five.has_validation(5));
  EXPECT_FALSE(five.has_validation(10));
}

TEST(Metrics, AFreshRunStartsAFreshFile) {
  testing::TemporaryDirectory run;
  CapturedLog log;
  for (int again = 0; again < 2; ++again) {
    Metrics metrics(quick_files(), *log, run.path(), 0, kOptions);
    take_steps(metrics, 0, 20);
  }
  EXPECT_EQ(lines(run.path()), undisturbed());
}

TEST(Metrics, AFullDiskAnywhereLosesNoLineAndDoesNotStopTheRun) {
  const std::string expected = undisturbed();
  int64_t at = 0;
  for (bool fired = true; fired; ++at) {
    testing::TemporaryDirectory run;
    CapturedLog log;
    FaultyFiles files(Fault::kNoSpace, at);
    {
      Metrics metrics(files, *log, run.path(), 0, kOptions);
      take_steps(metrics, 0, 20);
      metrics.sync();
    }
    fired = files.fired();
    EXPECT_EQ(lines(run.path()), expected) << "operation " << at;
    EXPECT_EQ(count(log.text(), "warning"), fired ? 1 : 0) << log.text();
  }
  EXPECT_GT(at, 7);
}

}  // namespace retort::train
