#include <gmock/gmock.h>

#include "distill/inspect_cache.h"
#include "distill/teacher_cache.h"
#include "recipes/on_ranks.h"
#include "tests/distill/served_model.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(
run: { seed: 3 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 4 }
model: { context: 48, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 20, precision: fp32, optimizer: { lr: 1.0e-2 }, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train }
  - { name: other, kind: train, model: { width: 16 } }
  - name: labels
    kind: capture
    model: { from: stage:teacher }
    capture: { draws: 20, block_tokens: 1000, precision: fp32 }
)";

using CaptureStage = RecipeRun;

// `url` is set by the test.
constexpr const char* kServedRecipe = R"(
run: { seed: 3 }
data: { train: stage:text, validation: stage:text, sequence: 24, batch_tokens: 192, micro_batch: 4 }
model: { context: 48, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 5, precision: fp32, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - name: labels
    kind: capture
    capture: { kind: top_k, k: 20, block_tokens: 1000, server: { url: "http://127.0.0.1:9", model: tiny, back_off: 0.01 } }
  - name: student
    kind: train
    distill: { teacher: { kind: cached, cache: stage:labels }, losses: [ { fn: top_k_ghost } ] }
)";

using ServedStage = RecipeRun;

std::string bytes_below(const Path& directory) {
  std::vector<Path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string out;
  for (const Path& file : files) out += file.filename().string() + read_text(file);
  return out;
}

std::string inspected(const Path& cache, const std::string& shards, const std::string& tokenizer) {
  std::string out;
  distill::inspect_cache(cache, shards, tokenizer, [&](std::string_view line) { (out += line) += "\n"; });
  return out;
}

}  // namespace

TEST_F(CaptureStage, KeepsLabelsOfEveryTokenAndSaysWhatTheyCost) {
  EXPECT_THAT(run(recipe(kRecipe), {.only = "capture"}), HasSubstr("labels and"));
  EXPECT_FALSE(std::filesystem::exists(in_run("other"))) << "nobody asked for it";
  const distill::TeacherCache cache(in_run("labels/cache"));
  cache.verify();
  cache.check_corpus(data::TokenShards(in_run("text/train")));
  const distill::CacheFacts& facts = cache.facts();
  EXPECT_EQ(facts.block_tokens, 992);  // whole windows
  EXPECT_EQ(facts.window, 32);
  EXPECT_EQ(facts.seed, 3);
  EXPECT_EQ(figure("labels", "captured_tokens"), static_cast<double>(facts.tokens));
  EXPECT_NEAR(figure("labels", "labels_per_token"),
              static_cast<double>(cache.labels()) / static_cast<double>(facts.tokens), 1e-9);
  EXPECT_NEAR(figure("labels", "cache_bytes"), static_cast<double>(cache.bytes()), 0.5);
}

TEST_F(CaptureStage, RanksAndInterruptionsLeaveTheSameBytes) {
  run(recipe(kRecipe));
  const std::string whole = bytes_below(in_run("labels/cache"));
  const Recipe shared = recipe(kRecipe, {"stages.labels.parallel.ranks=3"});
  std::filesystem::remove_all(in_run("labels"));
  run(shared);
  EXPECT_TRUE(bytes_below(in_run("labels/cache")) == whole);

  // Stopped before the stage was done: what is there is kept.
  std::filesystem::remove(in_run("labels/result.json"));
  std::filesystem::remove(distill::block_path(in_run("labels/cache"), 1));
  const auto kept = std::filesystem::last_write_time(distill::block_path(in_run("labels/cache"), 0));
  stop_ = true;
  run(shared);
  EXPECT_EQ(code_, ExitCode::kPreempted);
  stop_ = false;
  run(shared);
  EXPECT_TRUE(bytes_below(in_run("labels/cache")) == whole);
  EXPECT_EQ(std::filesystem::last_write_time(distill::block_path(in_run("labels/cache"), 0)), kept);
}

// Labels are found by a token's place, so what shapes a student's batches does not make them again; what the
// teacher reads and what is drawn does.
TEST_F(CaptureStage, BelongsToTextAndTeacherAndNotToBatches) {
  const Recipe base = recipe(kRecipe);
  const auto identity = [&](const std::vector<std::string>& sets) {
    const Recipe changed = recipe(kRecipe, sets);
    return stage_identity(changed, *changed.find("labels"));
  };
  const std::string own = stage_identity(base, *base.find("labels"));
  for (const char* same : {"data.batch_tokens=512", "data.micro_batch=2", "stages.labels.parallel.ranks=2",
                           "data.validation=''"})
    EXPECT_EQ(identity({same}), own) << same;
  for (const char* other : {"data.sequence=16", "data.isolate_documents=true", "run.seed=4",
                            "stages.labels.capture.draws=21", "stages.labels.model.from=stage:other"})
    EXPECT_NE(identity({other}), own) << other;
}

TEST_F(CaptureStage, InspectSaysWhatACacheHoldsAndWhetherItFits) {
  run(recipe(kRecipe));
  const Path cache = in_run("labels/cache");
  const std::string said = inspected(cache, in_run("text/train").string(), "bytes");
  for (const char* part : {"sampled of ", "20 draws a token at temperature 1", "checksums hold",
                           "windows of 32 tokens", "fits the shards", "fits the tokenizer bytes"})
    EXPECT_THAT(said, HasSubstr(part));
  EXPECT_THAT(inspected(cache, "", ""), Not(HasSubstr("fits")));
  try {
    inspected(cache, in_run("text/validation").string(), "");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("captured on other text"));
  }
}

TEST_F(CaptureStage, OnlyAskedForWhereThereIsOne) {
  try {
    run(recipe(kRecipe), {.only = "claim"});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no stage of kind claim"));
  }
}

TEST_F(CaptureStage, AnErrorOfOneRankIsTheStages) {
  const Recipe one = recipe(kRecipe, {"stages.labels.parallel.ranks=2"});
  const auto comm = comm::make_self_comm();
  Log log(stderr, "", true);
  StageContext context{.recipe = one,
                       .stage = *one.find("labels"),
                       .run = {},
                       .directory = {},
                       .identity = {},
                       .comm = *comm,
                       .threads = 2,
                       .tuning = [] { return kernels::CpuTuning(); },
                       .files = local_files(),
                       .log = log,
                       .stop = stop_,
                       .print = {}};
  try {
    on_ranks(context, [](StageContext& mine, comm::Comm& group, Log&) -> StageOutcome {
      EXPECT_EQ(mine.threads, 1);
      if (group.rank() == 1) throw DataError("one of two");
      group.barrier();
      return {};
    });
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("one of two"));
  }
  const StageOutcome outcome = on_ranks(context, [](StageContext&, comm::Comm& group, Log&) {
    return StageOutcome{
        {{"sum", group.reduce(int64_t{group.rank() + 1}, comm::Reduce::kSum)}, {"rank", group.rank()}}};
  });
  EXPECT_EQ(outcome.result.at("sum"), 3);
  EXPECT_EQ(outcome.result.at("rank"), 0);
}

TEST_F(ServedStage, AStudentLearnsFromAServersLabels) {
  testing::ServedModel model(1);
  testing::FakeServer server([&](const testing::FakeRequest& request) {
    return request.number == 5 ? testing::FakeAnswer{.body = "busy", .status = 503} : model.answer(request);
  });
  const std::string said = run(recipe(
      kServedRecipe, {"stages.labels.capture.server.url=" + server.url(), "stages.labels.parallel.ranks=2"}));
  EXPECT_THAT(said, HasSubstr("teacher tiny of " + server.url()));
  EXPECT_THAT(said, HasSubstr("HTTP 503, \"busy\"; asked again in"));
  const distill::TeacherCache cache(in_run("labels/cache"));
  EXPECT_EQ(cache.facts().teacher_name, "tiny");
  EXPECT_THAT(cache.facts().teacher, ::testing::StartsWith("served:"));
  EXPECT_EQ(figure("labels", "labels_per_token"), 20);
  EXPECT_GT(figure("student", "bits_per_byte"), 0);
  // A finished capture asks nobody, wherever the server is now.
  const int64_t requests = server.requests();
  run(recipe(kServedRecipe));
  EXPECT_EQ(server.requests(), requests);
}

TEST_F(ServedStage, AServerThatIsNotThereEndsTheStage) {
  const std::string said = error_of(recipe(kServedRecipe, {"stages.labels.capture.server.retries=1"}));
  EXPECT_EQ(code_, ExitCode::kInputOutput);
  EXPECT_THAT(said, HasSubstr("http://127.0.0.1:9/v1/models: failed 2 times"));
}

TEST_F(ServedStage, WhatAServerCannotGiveIsFoundBeforeTheRun) {
  const auto refusal = [&](std::vector<std::string> sets) -> std::string {
    try {
      recipe(kServedRecipe, std::move(sets));
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({}), "");
  EXPECT_THAT(refusal({"stages.labels.capture.kind=sampled"}), HasSubstr("capture.kind: must be top_k"));
  EXPECT_THAT(refusal({"stages.labels.capture.temperature=2"}), HasSubstr("capture.temperature: must be 1"));
  EXPECT_THAT(refusal({"stages.labels.capture.server.model=''"}),
              HasSubstr("must be the name that the server has"));
  EXPECT_THAT(refusal({"stages.labels.model.from=stage:text"}),
              HasSubstr("is not for a capture from a server"));
  EXPECT_THAT(refusal({"stages.student.distill.teacher.model=preset:tiny"}), HasSubstr("cannot be checked"));
  EXPECT_THAT(refusal({"stages.labels.capture.server.url='http://me:key@host'"}),
              HasSubstr("has no @"));
}

TEST_F(ServedStage, ItsIdentityIsTheModelAndNotTheWayToIt) {
  const auto identity = [&](const std::vector<std::string>& sets) {
    const Recipe changed = recipe(kServedRecipe, sets);
    return stage_identity(changed, *changed.find("labels"));
  };
  const std::string own = identity({}), server = "stages.labels.capture.server.";
  for (const char* same : {"url=https://elsewhere", "parallel=9", "timeout=3", "retries=0", "back_off=2",
                           "api_key_variable=KEY"})
    EXPECT_EQ(identity({server + same}), own) << same;
  for (const char* other : {"model=other", "api=llama.cpp"})
    EXPECT_NE(identity({server + other}), own) << other;
  EXPECT_NE(identity({"stages.labels.capture.k=21"}), own);
}

}  // namespace retort::recipes
