#include "recipes/stages/train_plan.h"

#include <gmock/gmock.h>

#include "plan/communication.h"
#include "recipes/stages/distill_cost.h"
#include "tests/plan/counted_tensors.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

constexpr const char* kRecipe = R"(
data: { train: stage:text, validation: stage:text, sequence: 64, batch_tokens: 1024, micro_batch: 4 }
model: { context: 64, layers: 2, width: 64, heads: 2, ffn_width: 128 }
train: { steps: 100, precision: fp32, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train, model: { layers: 3, width: 128, heads: 4 } }
  - { name: labels, kind: capture, model: { from: stage:teacher }, capture: { draws: 100 } }
  - { name: plain, kind: train }
  - name: student
    kind: train
    distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl } ] }
  - name: frugal
    kind: train
    distill: { teacher: { kind: cached, cache: stage:labels }, losses: [ { fn: sampled } ] }
  - { name: qat, kind: train, quantize: { weights: { grid: q4_0 } } }
)";

class PlanOf : public RecipeRun {
 protected:
  TrainPlan plan(const Recipe& recipe, const char* stage, int64_t ranks = 0,
                 const char* device = "h100") const {
    return *plan_train(recipe, *recipe.find(stage), ranks, plan::devices().at(device));
  }
};

}  // namespace

TEST_F(PlanOf, FollowsFromTheRecipe) {
  const Recipe r = recipe(kRecipe);
  const TrainPlan p = plan(r, "plain", 2);
  const int64_t layer = 4 * 64 * 64 + 3 * 64 * 128;
  EXPECT_EQ(p.work.parameters.stored, 2 * (layer + 2 * 64) + 64 + 2 * 256 * 64);
  EXPECT_DOUBLE_EQ(p.student.products, 6.0 * (2 * layer + 256 * 64));
  EXPECT_DOUBLE_EQ(p.student.attention, 12.0 * 2 * 64 * 64);
  EXPECT_EQ(p.work.batch.micro_batches, 2);
  EXPECT_EQ(p.work.batch.ranks, 2);
  EXPECT_EQ(p.steps, 100);
  EXPECT_FALSE(p.work.bf16);
  EXPECT_DOUBLE_EQ(p.teacher_flops, 0);
  EXPECT_GT(p.time().total(), 0);
}

// A reference that is asked before the first step has no part in the steps.
TEST_F(PlanOf, AReferenceCostsAStepUnlessItIsKept) {
  const std::string stage = R"(
  - { name: pairs, kind: prepare, prepare: { text: [PAIRS], chosen: chosen, rejected: rejected } }
  - name: tuned
    kind: train
    model: { from: stage:plain }
    data: { train: stage:pairs }
    preference: { loss: dpo, precompute: PRE }
)";
  write_durably(local_files(), directory_ / "pairs.jsonl", R"({"chosen":"a","rejected":"b"})");
  const auto of = [&](const std::string& precompute) {
    std::string one = kRecipe + stage;
    one.replace(one.find("PAIRS"), 5, (directory_ / "pairs.jsonl").string());
    return plan(recipe(one.replace(one.find("PRE"), 3, precompute)), "tuned");
  };
  const TrainPlan live = of("false"), kept = of("true");
  EXPECT_DOUBLE_EQ(live.teacher_flops, live.student.total() / 3);
  EXPECT_GT(plan::peak(live.work).memory.teacher, 0);
  EXPECT_EQ(plan::peak(live.work).memory.graph, 0);
  EXPECT_DOUBLE_EQ(kept.teacher_flops, 0);
  EXPECT_DOUBLE_EQ(plan::peak(kept.work).memory.teacher, 0);
}

TEST_F(PlanOf, ATeacherCostsAsItIsAsked) {
  const Recipe r = recipe(kRecipe);
  const TrainPlan live = plan(r, "student"), cached = plan(r, "frugal"), plain = plan(r, "plain");
  EXPECT_DOUBLE_EQ(live.teacher_flops, plan(r, "teacher").student.total() / 3);
  EXPECT_DOUBLE_EQ(cached.teacher_flops, 0);
  const double weights = 4.0 * static_cast<double>(plan(r, "teacher").work.parameters.stored);
  EXPECT_GT(plan::peak(live.work).memory.teacher, weights);
  const double labels = plan::peak(cached.work).memory.teacher;
  EXPECT_GT(labels, 0);
  EXPECT_LT(labels, weights / 10);
  EXPECT_DOUBLE_EQ(plan::peak(plain.work).memory.teacher, 0);
}

TEST_F(PlanOf, PrecisionAndGridsMakeAWorkingCopy) {
  const Recipe r = recipe(kRecipe);
  const auto working = [](const TrainPlan& p) { return plan::peak(p.work).memory.states.working; };
  EXPECT_DOUBLE_EQ(working(plan(r, "plain")), 0);
  const double matrices = static_cast<double>(plan(r, "plain").work.parameters.trained_matrices);
  EXPECT_DOUBLE_EQ(working(plan(r, "qat")), 4 * matrices);
  const Recipe automatic = recipe(kRecipe, {"train.precision=auto"});
  EXPECT_DOUBLE_EQ(working(plan(automatic, "plain")), 2 * matrices) << "bf16, which is faster there";
  TrainPlan slow = *plan_train(automatic, *automatic.find("plain"), 0, plan::measured_cpu(90, 8));
  EXPECT_FALSE(slow.work.bf16);
}

TEST_F(PlanOf, TheTextNamesEveryPartAndItsAssumptions) {
  const Recipe r = recipe(kRecipe);
  const std::string text = plan_text(plan(r, "student", 4));
  for (const char* part : {"weights", "gradients", "optimizer", "activations", "head", "teacher", "data",
                           "fits", "sent a step", "ZeRO-1 *", "parameters", "* not in this version",
                           "6 N' + 12 L H K T", "device-hours", "has not run on a GPU", "data sheet"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(text, Not(HasSubstr("does not fit")));
  EXPECT_THAT(plan_text(plan(r, "plain", 1)), Not(HasSubstr("ZeRO")));
}

TEST_F(PlanOf, WhatDoesNotFitComesWithWhatDoes) {
  const Recipe r = recipe(kRecipe, {"data.micro_batch=1024", "data.batch_tokens=65536"});
  TrainPlan p = plan(r, "plain", 1);
  ASSERT_TRUE(plan::fits(p.work, p.device));
  p.device.memory = 50e6;
  ASSERT_FALSE(plan::fits(p.work, p.device));
  EXPECT_THAT(plan_text(p),
              HasSubstr("does not fit the 45.0 MB that tensors of a rank have on h100; data.micro_batch "));
  const formats::Json json = plan_json(p);
  EXPECT_EQ(json["memory"][0]["fits"], false);
  EXPECT_EQ(json["would_fit"]["micro_batch"], *plan::remedy(p.work, p.device).rows);
}

TEST_F(PlanOf, JsonHasTheSameNumbers) {
  const Recipe r = recipe(kRecipe);
  const TrainPlan p = plan(r, "student", 4);
  const formats::Json json = plan_json(p);
  EXPECT_EQ(json["parameters"]["stored"], p.work.parameters.stored);
  EXPECT_EQ(json["flops_a_token"]["total"], p.flops_a_token());
  EXPECT_EQ(json["memory"].size(), 5u);
  EXPECT_EQ(json["memory"][0]["total_bytes"], plan::peak(p.work).memory.total());
  EXPECT_EQ(json["memory"][0]["in_engine"], true);
  EXPECT_EQ(json["memory"][4]["policy"], "parameters");
  EXPECT_EQ(json["memory"][4]["in_engine"], true);
  EXPECT_EQ(json["memory"][1]["bytes_sent_a_step"], plan::bytes_sent(p.work, plan::Policy::kOptimizer));
  EXPECT_TRUE(json["would_fit"]["micro_batch"].is_null());
}

TEST_F(PlanOf, ParallelShardIsItsPolicy) {
  const TrainPlan whole = plan(recipe(kRecipe), "plain", 4),
                  divided = plan(recipe(kRecipe, {"parallel.shard=optimizer"}), "plain", 4);
  EXPECT_EQ(whole.policy, plan::Policy::kNone);
  EXPECT_EQ(divided.policy, plan::Policy::kOptimizer);
  EXPECT_THAT(plan_text(divided), HasSubstr(" optimizer |"));
  EXPECT_EQ(plan(recipe(kRecipe, {"parallel.shard=gradients"}), "plain", 4).policy, plan::Policy::kGradients);
  EXPECT_EQ(plan(recipe(kRecipe, {"parallel.shard=parameters"}), "plain", 4).policy,
            plan::Policy::kParameters);
  EXPECT_THAT(plan_text(divided), HasSubstr(" gradients |"));
}

TEST_F(PlanOf, CheckSaysTheSameBytes) {
  const Recipe r = recipe(kRecipe);
  const TrainPlan p = plan(r, "plain", 0, "cpu");
  const auto bytes = static_cast<uint64_t>(plan::peak(p.work).memory.total());
  EXPECT_THAT(train_plan(r, *r.find("plain"), 0),
              HasSubstr(format_bytes(bytes) + " of memory a rank in fp32, highest at: "));
}

TEST_F(PlanOf, CheckWarnsOfWhatThisMachineHasNotTheMemoryFor) {
  EXPECT_THAT(train_plan(recipe(kRecipe), *recipe(kRecipe).find("plain"), 0), Not(HasSubstr("warning")));
  // 2^40 tokens of a micro-batch are beyond any machine.
  const std::vector<std::string> sets = {"data.micro_batch=17179869184", "data.batch_tokens=1099511627776"};
  const Recipe large = recipe(kRecipe, sets);
  const std::string text = train_plan(large, *large.find("plain"), 0);
  EXPECT_THAT(text,
              ::testing::ContainsRegex(
                  "\n  warning: does not fit the [0-9.]+ [kMGT]?B that tensors of a rank have on cpu; "));
  Recipe on_gpu = large;
  on_gpu.run.device = "cuda";  // which reading refuses where there is none
  EXPECT_THAT(train_plan(on_gpu, *on_gpu.find("plain"), 0), Not(HasSubstr("warning")))
      << "the memory of this machine is not the device's";
}

// Where the run repeats its micro-batches (docs/cuda.md).
TEST_F(PlanOf, AGraphOfAMicroBatchHoldsItsMemory) {
  const auto graph = [&](const char* stage, const std::vector<std::string>& set = {},
                         const char* device = "h100", plan::Policy policy = plan::Policy::kNone) {
    const int64_t ranks = policy == plan::Policy::kNone ? 1 : 4;
    return plan::peak(plan(recipe(kRecipe, set), stage, ranks, device).work, policy).memory.graph;
  };
  EXPECT_GT(graph("plain"), 0);
  EXPECT_GT(graph("student"), graph("plain")) << "the teacher's rows are in it";
  EXPECT_GT(graph("plain", {}, "h100", plan::Policy::kGradients), 0);
  EXPECT_EQ(graph("plain", {}, "h100", plan::Policy::kParameters), 0) << "weights are gathered";
  EXPECT_EQ(graph("plain", {"train.graph=false"}), 0);
  EXPECT_EQ(graph("plain", {}, "cpu"), 0);
  EXPECT_EQ(graph("plain", {"train.neftune=5"}), 0);
  EXPECT_EQ(graph("plain", {"data.isolate_documents=true"}), 0);
  EXPECT_EQ(graph("frugal"), 0) << "labels come from the host";
  const auto of_student = [&](const std::string& text, const std::string& instead) {
    std::string one = kRecipe;
    const std::string distill =
        "{ teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl } ] }";
    const size_t at = one.find(distill);
    std::string changed = distill;
    one.replace(at, distill.size(), changed.replace(distill.find(text), text.size(), instead));
    return plan::peak(plan(recipe(one), "student", 1).work).memory.graph;
  };
  EXPECT_EQ(of_student("forward_kl", "sampled"), 0) << "draws on the host";
  EXPECT_EQ(of_student("fn: forward_kl", "fn: forward_kl, schedule: { kind: linear, end: 9 }"), 0);
  EXPECT_EQ(of_student(" ] }", " ], on_policy: { prompt: 8 } }"), 0);
  EXPECT_EQ(of_student("teacher: { model: stage:teacher, precision: fp32 }",
                       "teachers: [ { model: stage:teacher }, { model: stage:plain } ]"),
            0)
      << "mixed";
  const TrainPlan p = plan(recipe(kRecipe), "plain", 1);
  EXPECT_THAT(plan_text(p), HasSubstr("| graph "));
}

// Where steps follow a save, and in the memory of the host.
TEST_F(PlanOf, AnAsynchronousSaveTakesACopy) {
  const auto saved = [&](std::vector<std::string> set, const char* device) {
    const TrainPlan p = plan(recipe(kRecipe, set), "plain", 1, device);
    return plan::peak(p.work).memory.saved;
  };
  const TrainPlan p = plan(recipe(kRecipe, {"train.checkpoint_every=10"}), "plain", 1, "cpu");
  EXPECT_DOUBLE_EQ(plan::peak(p.work).memory.saved, 12.0 * static_cast<double>(p.work.parameters.stored) + 8);
  EXPECT_THAT(plan::peak(p.work).memory.parts(), Contains(Key("saves")));
  EXPECT_DOUBLE_EQ(saved({"train.checkpoint_every=10", "train.save=sync"}, "cpu"), 0);
  EXPECT_DOUBLE_EQ(saved({"train.checkpoint_every=10"}, "h100"), 0);
  EXPECT_DOUBLE_EQ(saved({"train.checkpoint_every=0", "data.micro_batch=16"}, "cpu"), 0) << "the end alone";
}

// A base whose codes are a fraction of it is read whole before they are made.
TEST_F(PlanOf, ABaseInCodesTakesWhatItsPlanSays) {
  const std::string tuned =
      "  - { name: tuned, kind: train, model: { from: stage:teacher }, train: { steps: 2 }, "
      "adapters: { base: q8_0 } }\n";
  Recipe r = recipe(kRecipe + tuned,
                    {"train.steps=1", "stages.teacher.model.width=256", "stages.teacher.model.layers=12",
                     "stages.teacher.model.ffn_width=768", "data.batch_tokens=64", "data.micro_batch=1"});
  std::erase_if(r.stages, [](const Stage& stage) {
    return stage.name != "text" && stage.name != "teacher" && stage.name != "tuned";
  });
  Recipe before = r;
  before.stages.pop_back();
  run(before);
  const plan::Moment planned = plan::peak(plan(r, "tuned", 0, "cpu").work);
  EXPECT_EQ(planned.name, "start");
  const testing::CountedTensors counted;
  run(r);
  ASSERT_EQ(code_, ExitCode::kDone);
  const double real = static_cast<double>(counted.peak());
  EXPECT_NEAR(planned.memory.total() / real, 1.0, 0.08)
      << planned.memory.total() << " planned, " << real << " measured";
}

// The whole stage: model, stream, trainer, validation, checkpoints, of which a copy is there after the first.
TEST_F(PlanOf, AStageTakesWhatItsPlanSays) {
  const Recipe r = recipe(kRecipe, {"train.steps=3", "train.checkpoint_every=1", "model.width=192",
                                    "model.ffn_width=512", "model.layers=4"});
  run(r, {.only = "prepare"});
  const TrainPlan p = plan(r, "teacher", 0, "cpu");
  const testing::CountedTensors counted;
  Recipe alone = r;
  std::erase_if(alone.stages,
                [](const Stage& stage) { return stage.name != "text" && stage.name != "teacher"; });
  run(alone);
  const double planned = plan::peak(p.work).memory.total(), real = static_cast<double>(counted.peak());
  EXPECT_NEAR(planned / real, 1.0, 0.08) << planned << " planned, " << real << " measured";
}

}  // namespace retort::recipes
