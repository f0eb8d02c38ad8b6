#include "recipes/inputs.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/file.h"
#include "tests/testing.h"

namespace retort::recipes {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Inputs, LieWhereTheirMakersPutThem) {
  EXPECT_EQ(place_of({"data.train", "stage:text", Thing::kShards, "train"}, "run"), Path("run/text/train"));
  EXPECT_EQ(place_of({"distill.teacher.cache", "stage:labels", Thing::kCache}, "run"),
            Path("run/labels/cache"));
  EXPECT_EQ(place_of({"model.from", "stage:model", Thing::kModel}, "run"), Path("run/model"));
  EXPECT_EQ(place_of({"report.stages", "stage:model", Thing::kResult}, "run"), Path("run/model/result.json"));
  EXPECT_EQ(place_of({"model.from", "some/folder", Thing::kModel}, "run"), Path("some/folder"));
}

TEST(Inputs, SayWhatIsWrongWithThem) {
  const testing::TemporaryDirectory directory;
  std::ofstream(directory / "file") << "text\n";
  const auto trouble = [&](const std::string& name, Thing thing) {
    return trouble_with({"key", (directory / name).string(), thing, "train"});
  };
  EXPECT_EQ(trouble("file", Thing::kText), "");
  EXPECT_THAT(trouble("none", Thing::kText), HasSubstr("no such file"));
  EXPECT_THAT(trouble("", Thing::kText), HasSubstr("must be a file of text"));
  EXPECT_THAT(trouble("file", Thing::kShards), HasSubstr("must be a directory of token shards"));
  EXPECT_THAT(trouble("none", Thing::kModel), HasSubstr("no such file or directory"));
  EXPECT_NE(trouble("file", Thing::kTokenizer), "");
  EXPECT_EQ(trouble_with({"key", "bytes", Thing::kTokenizer}), "");
  EXPECT_EQ(trouble_with({"key", "chatml", Thing::kTemplate}), "");
  EXPECT_THAT(trouble_with({"key", "chatlm", Thing::kTemplate}), HasSubstr("did you mean \"chatml\"?"));
  EXPECT_THAT(trouble("none", Thing::kTemplate), HasSubstr("no such chat template"));
  EXPECT_EQ(trouble_with({"key", "stage:anything", Thing::kShards, "train"}), "") << "a stage makes it";
}

// Not that of the stage that made it, nor a file of it.
TEST(Inputs, ACacheIsTheDirectoryOfItsLabels) {
  const testing::TemporaryDirectory directory;
  const auto trouble = [&](const Path& path) { return trouble_with({"key", path.string(), Thing::kCache}); };
  const Path run = directory / "run", labels = run / "labels" / "cache", more = run / "more" / "cache";
  local_files().make_directories(labels);
  std::ofstream(labels / "block-00000.h5") << "";
  EXPECT_EQ(trouble(labels), "");
  const std::string meant = "; did you mean " + labels.string() + "?";
  for (const Path& path : {run / "labels", run, labels / "block-00000.h5"})
    EXPECT_EQ(trouble(path),
              "must be a directory of labels, block-00000.h5 and more (a capture stage makes one in "
              "its directory, as cache), got " +
                  path.string() + meant);
  local_files().make_directories(more);
  EXPECT_THAT(trouble(more),
              AllOf(HasSubstr("must be a directory of labels"), Not(HasSubstr("did you mean"))));
  std::ofstream(more / "block-00001.h5") << "";
  EXPECT_EQ(trouble(more), "") << "opening it says that the capture was not finished";
  EXPECT_THAT(trouble(run), HasSubstr("; name one of " + labels.string() + ", " + more.string()));
  EXPECT_EQ(trouble(directory / "none"), "no such file or directory: " + (directory / "none").string());
}

// What lies in runs/ of the working directory.
TEST(Inputs, ACacheOfARunIsNamedByItsPath) {
  const testing::TemporaryDirectory directory;
  const Path labels = directory / "runs" / "mine" / "labels" / "cache",
             before = std::filesystem::current_path();
  local_files().make_directories(labels);
  std::ofstream(labels / "block-00000.h5") << "";
  std::filesystem::current_path(directory.path());
  const std::string said = trouble_with({"key", "mine", Thing::kCache});
  std::filesystem::current_path(before);
  EXPECT_EQ(said, "no such file or directory: mine; did you mean runs/mine/labels/cache?");
}

TEST(Inputs, StandForWhatTheyHold) {
  const testing::TemporaryDirectory directory;
  const auto state = [&](const std::string& name, const char* text) {
    std::ofstream(directory / name) << text;
    return state_of({"run.text", (directory / name).string(), Thing::kText}, "");
  };
  EXPECT_EQ(state("a", "one"), state("b", "one")) << "names of text files do not count";
  EXPECT_NE(state("a", "two"), state("b", "one"));
  EXPECT_EQ(state_of({"model.from", "preset:llama3-8b", Thing::kModel}, ""), "") << "its name is in the keys";
}

}  // namespace retort::recipes
