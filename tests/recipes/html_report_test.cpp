#include "recipes/html_report.h"

#include "tests/recipes/process.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 64, micro_batch: 2 }
model: { context: 16, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 6, precision: fp32, log_every: 1, validate_every: 3, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: tiny, kind: train }
  - { name: sample, kind: generate, model: { from: stage:tiny }, generate: { prompt: "<verse", tokens: 4 } }
)";

class HtmlReport : public RecipeRun {};

}  // namespace

TEST_F(HtmlReport, ShowsResultsCurvesSamplesAndDifferences) {
  const Path other = directory_ / "other";
  run(recipe(kRecipe));
  run(recipe(kRecipe, {"run.dir=" + other.string(), "train.optimizer.lr=0.01"}));
  const std::string page = html_report({directory_ / "run", other});
  EXPECT_THAT(page, HasSubstr("<td>tiny</td><td>train</td>"));
  EXPECT_THAT(page, HasSubstr(fmt::format("{:.5g}", figure("tiny", "bits_per_byte"))));
  EXPECT_THAT(page, HasSubstr("tiny: loss"));
  EXPECT_THAT(page, HasSubstr("tiny: validation bits_per_byte"));
  EXPECT_THAT(page, HasSubstr("&lt;verse"));
  EXPECT_THAT(page, Not(HasSubstr("<verse")));
  EXPECT_THAT(page, HasSubstr("optimizer.lr</td>"));
  EXPECT_THAT(page, Not(HasSubstr("optimizer.beta1</td>"))) << "the same in both";
  EXPECT_THAT(page, Not(HasSubstr("http"))) << "needs no network";
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(html_report({other}), Not(HasSubstr("Differences")));
}

// A browser without a network draws it: something is on the page, and no part of it failed to load.
TEST_F(HtmlReport, ABrowserDrawsIt) {
  std::string browser;
  for (const char* name : {"/usr/bin/chromium", "/usr/bin/google-chrome"})
    if (browser.empty() && std::filesystem::exists(name)) browser = name;
  if (browser.empty()) GTEST_SKIP() << "no chromium and no google-chrome in /usr/bin";
  run(recipe(kRecipe));
  write_durably(local_files(), directory_ / "report.html", html_report({directory_ / "run"}));
  const Path shot = directory_ / "shot.png";
  testing::Process process({browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                            "--user-data-dir=" + (directory_ / "profile").string(), "--window-size=800,1200",
                            "--host-resolver-rules=MAP * ~NOTFOUND", "--screenshot=" + shot.string(),
                            "file://" + (directory_ / "report.html").string()},
                           directory_ / "browser");
  ASSERT_EQ(process.wait(), 0) << read_text(directory_ / "browser.err");
  ASSERT_TRUE(std::filesystem::exists(shot)) << read_text(directory_ / "browser.err");
  EXPECT_EQ(read_text(shot).substr(1, 3), "PNG");
  EXPECT_GT(std::filesystem::file_size(shot), 20000u) << "an empty page of this size takes a few KB";
}

TEST_F(HtmlReport, RefusesWhatIsNoRun) {
  try {
    html_report({directory_.path()});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("recipe.yaml"));
  }
}

}  // namespace retort::recipes
