#include "train/profiled_steps.h"

#include <gmock/gmock.h>

#include "formats/json.h"
#include "tests/train/tiny_run.h"

namespace retort::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The log of a run of so many steps that profiles some. `stop`: in this step.
std::string log_of(const Path& directory, int64_t steps, int64_t profiled, int64_t stop = -1) {
  TinyRun run;
  run.before_step = stop_at(stop, 0);
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
  const std::string three = log_of(directory / "three", 3, 10);
  EXPECT_THAT(three, HasSubstr("where 1 step went"));
  EXPECT_THAT(three, Not(HasSubstr("no step is profiled")));
}

TEST(ProfiledSteps, ARunOfTwoHasNoneAndSaysSo) {
  const testing::TemporaryDirectory directory;
  const std::string why =
      "no step is profiled (--profile): it needs at least 3 steps, of which the first 2 make what later ones "
      "reuse, got ";
  const std::string two = log_of(directory / "two", 2, 1);
  EXPECT_THAT(two, HasSubstr(why + "2 left"));
  EXPECT_EQ(two.find(why), two.rfind(why)) << "not at the end once more";
  const std::string stopped = log_of(directory / "stopped", 8, 1, /*stop=*/1);
  EXPECT_THAT(stopped, HasSubstr(why + "2 taken before the end"));
  EXPECT_THAT(log_of(directory / "none", 2, 0), Not(HasSubstr(why)));
  for (const std::string& log : {two, stopped}) EXPECT_THAT(log, Not(HasSubstr("steps went")));
  for (const char* run : {"two", "stopped"})
    EXPECT_FALSE(std::filesystem::exists(directory / run / "profile.json"));
}

}  // namespace retort::train
