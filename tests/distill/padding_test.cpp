// Student and teacher whose vocabularies are padded to other sizes: every loss is what it is without padding.
#include <gtest/gtest.h>

#include "distill/objective.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

constexpr int64_t kTokens = 40;

// The padding rows would win, were they tokens.
std::unique_ptr<models::Decoder> model_of(uint64_t seed, int64_t padding) {
  models::DecoderSpec spec{.vocabulary = kTokens,
                           .context = 16,
                           .layers = 2,
                           .width = 16,
                           .heads = 2,
                           .kv_heads = 2,
                           .head_dim = 8,
                           .ffn_width = 32};
  auto plain = std::make_unique<models::Decoder>(spec);
  models::initialise(plain->parameters(), "normal", 0.3, seed);
  spec.vocabulary += padding;
  auto model = std::make_unique<models::Decoder>(spec);
  for (models::Parameter& p : model->parameters().unique())
    p.master.fill_(5.0)
        .narrow(0, 0, plain->parameters().at(p.name).shape[0])
        .copy_(plain->parameters().at(p.name).master);
  model->set_tokens(kTokens);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

struct Outcome {
  at::Tensor sum;
  std::vector<at::Tensor> gradients;  // of the tokens' rows
  double padding = 0;                 // the others' largest
};

Outcome outcome_of(const LossOptions& loss, int64_t student_padding, int64_t teacher_padding) {
  const auto student = model_of(1, student_padding);
  const auto objective =
      make_distillation(make_live_teacher(model_of(2, teacher_padding)), {loss}, *student, 3);
  data::Batch batch;
  batch.tokens_BT = (at::arange(24) * 7 % 31).view({3, 8});
  batch.labels_BT = (batch.tokens_BT + 1) % kTokens;
  batch.corpus_BT = at::arange(24).view({3, 8});
  if (models::Parameters* learned = objective->learned()) {
    models::IdentityMap identity;
    models::bind_working(*learned, identity, at::kFloat);
  }
  const train::LossSum sum = (*objective)(*student, batch);
  sum.sum.backward();
  Outcome out{sum.sum.detach(), {}, 0};
  for (const models::Parameter& p : student->parameters().unique()) {
    const at::Tensor gradient = p.working.grad();
    if (!gradient.defined()) continue;
    const bool table = student_padding > 0 && p.shape[0] == kTokens + student_padding;
    out.gradients.push_back(table ? gradient.narrow(0, 0, kTokens).clone() : gradient.clone());
    if (table)
      out.padding =
          std::max(out.padding, gradient.narrow(0, kTokens, student_padding).abs().max().item<double>());
  }
  return out;
}

}  // namespace

TEST(DistillationPadding, ChangesNoLossAndNoGradient) {
  int compared = 0;
  for (const LossSpec& spec : losses()) {
    const LossOptions loss{.fn = spec.name};
    const Outcome plain = outcome_of(loss, 0, 0);
    for (const auto& [student, teacher] : {std::pair{24, 0}, {0, 24}, {24, 8}, {8, 24}}) {
      const Outcome padded = outcome_of(loss, student, teacher);
      EXPECT_TRUE(testing::same_bits(padded.sum, plain.sum)) << spec.name << " " << student << " " << teacher;
      EXPECT_EQ(padded.padding, 0.0) << spec.name;
      ASSERT_EQ(padded.gradients.size(), plain.gradients.size());
      for (size_t i = 0; i < plain.gradients.size(); ++i)
        EXPECT_LT(testing::relative_error(padded.gradients[i], plain.gradients[i]), 1e-5)
            << spec.name << " " << i;
      ++compared;
    }
  }
  EXPECT_GT(compared, 40);
}

}  // namespace retort::distill
