#include "train/profiled_steps.h"

#include <gmock/gmock.h>

#include "formats/json.h"
#include "tests/train/tiny_run.h"

namespace retort::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The log of a run of so many steps that profiles some.
std::string log_of(const Path& directory, int64_t steps, int64_t profiled) {
  TinyRun run;
  run.options.steps = steps;
  run.before_run = [=](int, TrainerParts& parts) { parts.profile = profiled; };
  run(directory);
  return run.log;
}

// How often an operation was called, by the trace.
int64_t calls(const Path& directory, const std::string& name) {
  int64_t out = 0;
  const formats::Json trace = formats::read_json(directory / "profile.json");
  for (const formats::Json& event : trace.at("traceEvents")) out += event.at("name") == name ? 1 : 0;
  return out;
}

}  // namespace

TEST(ProfiledSteps, AreToldOnceTheyAreOver) {
  const testing::TemporaryDirectory directory;
  const std::string log = log_of(directory.path(), 8, 3);
  EXPECT_THAT(log, HasSubstr("where 3 steps went"));
  EXPECT_EQ(log.find("steps went"), log.rfind("steps went"));
  for (const char* text : {"between operations", "what holds cpu's memory", "| optimizer ", "| free of "})
    EXPECT_THAT(log, HasSubstr(text));
  EXPECT_EQ(calls(directory.path(), "retort::linear_cross_entropy"), 3 * 2) << "of two micro-batches a step";
}

TEST(ProfiledSteps, FewerThanWereAskedForAreCounted) {
  const testing::TemporaryDirectory directory;
  EXPECT_THAT(log_of(directory / "four", 4, 10), HasSubstr("where 2 steps went"));
  EXPECT_THAT(log_of(directory / "three", 3, 10), HasSubstr("where 1 step went"));
}

TEST(ProfiledSteps, ARunOfTwoHasNone) {
  const testing::TemporaryDirectory directory;
  EXPECT_THAT(log_of(directory.path(), 2, 1), Not(HasSubstr("steps went")));
  EXPECT_FALSE(std::filesystem::exists(directory / "profile.json"));
}

}  // namespace retort::train
