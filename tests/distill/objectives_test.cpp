#include "distill/objectives.h"

#include "core/error.h"
#include "tests/distill/tiny_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

// Whatever the row: what it makes counts what the row says, and gives a loss of a batch.
TEST(Objectives, MakeWhatTheirRowsSay) {
  data::Batch batch;
  batch.tokens_BT = (at::arange(24) * 7 % 31).view({3, 8});
  batch.labels_BT = (batch.tokens_BT + 1) % 32;
  batch.labels_BT[1][3] = data::kIgnored;
  data::Batch answers = batch;
  answers.tokens_BT = batch.tokens_BT.narrow(0, 0, 2);
  answers.labels_BT = batch.labels_BT.narrow(0, 0, 2);
  answers.chosen_B = at::arange(2) == 0;
  for (const ObjectiveSpec& spec : objectives()) {
    const bool text = spec.batches == data::ShardKind::kText;
    EXPECT_FALSE(spec.doc.empty());
    const auto model = tiny_model(2);
    const auto objective =
        spec.make({.model = *model,
                   .teacher = make_live_teacher(tiny_model(1)),
                   .losses = {{.fn = "forward_kl"}},
                   .preference = {.loss = spec.batches == data::ShardKind::kRated ? "kto" : "dpo"}});
    const data::Batch& own = text ? batch : answers;
    EXPECT_EQ(objective->counted().name, spec.counted.name) << spec.name;
    EXPECT_EQ(objective->counted().in(own), spec.counted.in(own)) << spec.name;
    const train::LossSum loss = (*objective)(*model, own);
    EXPECT_GT(loss.sum.item<double>(), 0.0) << spec.name;
    EXPECT_EQ(loss.parts.size(), objective->part_names().size()) << spec.name;
  }
  EXPECT_EQ(train::labels().in(batch), 23);
}

// What learns from a text hears it, and what compares answers takes none.
TEST(Objectives, NoiseIsForTexts) {
  data::Batch batch;
  batch.tokens_BT = (at::arange(24) * 7 % 31).view({3, 8});
  batch.labels_BT = (batch.tokens_BT + 1) % 32;
  batch.samples = {0, 1, 2};
  for (const ObjectiveSpec& spec : objectives()) {
    const auto model = tiny_model(2);
    const auto make = [&](double alpha) {
      return spec.make({.model = *model,
                        .teacher = make_live_teacher(tiny_model(1)),
                        .losses = {{.fn = "forward_kl"}},
                        .preference = {.loss = spec.batches == data::ShardKind::kRated ? "kto" : "dpo"},
                        .noise = {alpha, 4}});
    };
    if (spec.batches != data::ShardKind::kText) {
      EXPECT_NO_THROW(make(0.0)) << spec.name;
      EXPECT_THROW(make(5.0), ConfigError) << spec.name;
      continue;
    }
    const auto loss = [&](double alpha) { return (*make(alpha))(*model, batch).sum.item<double>(); };
    EXPECT_GT(std::abs(loss(5.0) - loss(0.0)), 1e-3) << spec.name;
  }
}

TEST(Objectives, CrossEntropyIsDistillationWithoutATeacher) {
  data::Batch batch;
  batch.tokens_BT = (at::arange(24) * 7 % 31).view({3, 8});
  batch.labels_BT = (batch.tokens_BT + 1) % 32;
  const auto loss_of = [&](const char* name, std::vector<LossOptions> losses) {
    const auto model = tiny_model(2);
    const auto objective = objectives().at(name).make({.model = *model, .losses = std::move(losses)});
    return (*objective)(*model, batch).sum.item<double>();
  };
  const double plain = loss_of("cross_entropy", {});
  EXPECT_NEAR(loss_of("distillation", {{.fn = "cross_entropy"}}), plain, 1e-6 * plain);
  EXPECT_THROW(loss_of("distillation", {}), ConfigError);
  EXPECT_THROW(objectives().at("distilation"), ConfigError);
}

}  // namespace
}  // namespace retort::distill
