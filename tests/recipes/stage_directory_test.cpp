#include "recipes/stage_directory.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;

class StageDirectoryTest : public ::testing::Test {
 protected:
  // Work of a hash: begun, and finished or with a checkpoint.
  void make(const Path& place, const std::string& hash, bool finished) const {
    fs::create_directories(place / "checkpoints");
    write_json(local_files(), place / "stage.json", {{"hash", hash}, {"recipe", "kind: train\n"}});
    if (finished) write_json(local_files(), place / "result.json", {{"hash", hash}});
  }

  testing::TemporaryDirectory directory_;
  const Path stage_ = directory_ / "model";
  Log log_{stderr, "", true};
};

}  // namespace

TEST_F(StageDirectoryTest, FindsWorkInItsPlaceAndAside) {
  EXPECT_EQ(find_work(stage_, "a", true, false).plan, Plan::kFresh);
  make(stage_, "a", true);
  EXPECT_EQ(find_work(stage_, "a", true, false).plan, Plan::kSkip);
  EXPECT_EQ(find_work(stage_, "a", true, true).plan, Plan::kFresh);
  EXPECT_EQ(find_work(stage_, "b", true, false).plan, Plan::kFresh);
  make(directory_ / "model.replaced.2", "b", false);
  const StageWork aside = find_work(stage_, "b", true, false);
  EXPECT_EQ(aside.plan, Plan::kContinue);
  EXPECT_EQ(aside.place, directory_ / "model.replaced.2");
  EXPECT_EQ(find_work(stage_, "b", false, false).plan, Plan::kFresh);  // of a kind that does not go on
}

TEST_F(StageDirectoryTest, MovesWorkWithoutLosingAny) {
  make(stage_, "a", true);
  put_aside(stage_, "kind: train\n", Aside::kChanged, local_files(), log_);
  make(stage_, "b", false);
  put_aside(stage_, "kind: train\n", Aside::kChanged, local_files(), log_);
  make(stage_, "c", true);
  take_back(find_work(stage_, "a", true, false), stage_, local_files(), log_);
  EXPECT_EQ(find_work(stage_, "a", true, false).place, stage_);
  EXPECT_EQ(find_work(stage_, "b", true, false).plan, Plan::kContinue);
  EXPECT_EQ(find_work(stage_, "c", true, false).plan, Plan::kSkip);
  EXPECT_TRUE(is_put_aside(find_work(stage_, "c", true, false).place));
}

// A kill between the first bytes of stage.json and its name.
TEST_F(StageDirectoryTest, AHalfWrittenMarkIsNoWork) {
  fs::create_directories(stage_);
  std::ofstream(stage_ / "stage.json.tmp.17") << "{";
  Recipe recipe;
  recipe.run.dir = directory_.path().string();
  recipe.stages.emplace_back("train", "model");
  EXPECT_NO_THROW(check_own(recipe));
  EXPECT_EQ(put_aside(stage_, "kind: train\n", Aside::kChanged, local_files(), log_), Path());
  EXPECT_FALSE(fs::exists(stage_));
}

TEST_F(StageDirectoryTest, WhatCameToNothingIsNotKept) {
  make(stage_, "a", false);
  fs::remove(stage_ / "checkpoints");
  put_aside(stage_, "kind: train\n", Aside::kChanged, local_files(), log_);
  EXPECT_FALSE(fs::exists(stage_));
  EXPECT_FALSE(fs::exists(directory_ / "model.replaced"));
}

}  // namespace retort::recipes
