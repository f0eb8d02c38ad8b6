#include "distill/objective.h"

#include "core/random.h"
#include "models/weight_map.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using testing::relative_error;

constexpr int64_t kVocabulary = 32;

std::unique_ptr<models::Decoder> tiny_model(uint64_t seed, int64_t width = 16,
                                            int64_t vocabulary = kVocabulary) {
  models::DecoderSpec spec{.vocabulary = vocabulary,
                           .context = 16,
                           .layers = 2,
                           .width = width,
                           .heads = 2,
                           .kv_heads = 2,
                           .head_dim = 8,
                           .ffn_width = 32};
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.3, seed);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

data::Batch sample_batch() {
  data::Batch batch;
  batch.tokens_BT = (at::arange(24) * 7 % 31).view({3, 8});
  batch.labels_BT = (batch.tokens_BT + 1) % kVocabulary;
  batch.labels_BT[1][3] = batch.labels_BT[2][7] = kernels::kIgnoredLabel;
  return batch;
}

// A teacher that counts its calls and says what it is told to.
class FixedTeacher final : public Teacher {
 public:
  FixedTeacher(at::Tensor hidden_ND, int64_t vocabulary, int* calls)
      : signal_{.heads = {{std::move(hidden_ND), at::eye(vocabulary)}}}, calls_(calls) {}
  TeacherSignal signal(const data::Batch&) override {
    ++*calls_;
    return signal_;
  }
  int64_t vocabulary() const override { return signal_.heads.front().weight_VD.size(0); }
  double flops_per_token(int64_t) const override { return 5.0; }

 private:
  TeacherSignal signal_;
  int* calls_;
};

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

TEST(Distillation, PartsAreNamedByTheirLoss) {
  const auto objective = make_distillation(
      make_live_teacher(tiny_model(1)),
      {{.fn = "forward_kl"}, {.fn = "cross_entropy"}, {.fn = "forward_kl", .temperature = 2.0}});
  EXPECT_EQ(objective->part_names(),
            (std::vector<std::string>{"forward_kl", "cross_entropy", "forward_kl_2"}));
}

TEST(Distillation, WrongListsAreRefused) {
  EXPECT_EQ(message_of([] {
              make_distillation(make_live_teacher(tiny_model(1)), {});
            }).rfind("[distill] losses must not be empty; known: forward_kl", 0),
            0u);
  EXPECT_EQ(message_of([] { make_distillation(nullptr, {{.fn = "forward_kl"}}); }),
            "[distill] forward_kl needs a teacher, and there is none");
  EXPECT_NE(message_of([] {
              make_distillation(nullptr, {{.fn = "forwrd_kl"}});
            }).find("did you mean \"forward_kl\""),
            std::string::npos);
}

// A padded head of the teacher's changes nothing, not in a bit.
TEST(Distillation, PaddingOfTheTeachersHeadIsCut) {
  int calls = 0;
  at::Tensor logits = at::empty({24, kVocabulary});
  Random(1, "test/teacher").fill_normal(logits, 1.0);
  const auto loss = [&](int64_t padding) {
    const at::Tensor padded = at::cat({logits, at::full({24, padding}, 9.0)}, 1);
    const auto objective = make_distillation(
        std::make_unique<FixedTeacher>(padded, kVocabulary + padding, &calls), {{.fn = "forward_kl"}});
    return (*objective)(*tiny_model(2), sample_batch()).sum.item<float>();
  };
  EXPECT_GT(loss(0), 1.0f);
  EXPECT_EQ(loss(0), loss(8));
}

TEST(Distillation, ATeacherThatIsNotFiniteIsNamed) {
  int calls = 0;
  const auto objective =
      make_distillation(std::make_unique<FixedTeacher>(at::full({24, kVocabulary}, NAN), kVocabulary, &calls),
                        {{.fn = "forward_kl"}});
  std::unique_ptr<models::Decoder> student = tiny_model(2);
  EXPECT_THROW((*objective)(*student, sample_batch()), NonFiniteError);
}

TEST(Distillation, TheTeacherRunsOnlyWhenALossNeedsIt) {
  int calls = 0;
  const auto teacher = [&] {
    return std::make_unique<FixedTeacher>(at::zeros({24, kVocabulary}), kVocabulary, &calls);
  };
  std::unique_ptr<models::Decoder> student = tiny_model(2);
  const auto plain = make_distillation(teacher(), {{.fn = "cross_entropy"}});
  (*plain)(*student, sample_batch());
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(plain->extra_flops_per_token(8), 0.0);

  const auto distilled = make_distillation(teacher(), {{.fn = "forward_kl"}});
  (*distilled)(*student, sample_batch());
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(distilled->extra_flops_per_token(8), 5.0);
}

// Against full logits and plain autograd: values, parts, and every gradient of the student; none of the
// teacher.
TEST(Distillation, EqualsThePlainSum) {
  std::unique_ptr<models::Decoder> student = tiny_model(2), twin = tiny_model(2), wide = tiny_model(1, 24);
  const data::Batch batch = sample_batch();
  const auto objective = make_distillation(
      make_live_teacher(tiny_model(1, 24)),
      {{.fn = "forward_kl", .weight = 0.7, .temperature = 2.0}, {.fn = "cross_entropy", .weight = 0.3}});
  const train::LossSum loss = (*objective)(*student, batch);
  loss.sum.backward();

  const at::Tensor labels = batch.labels_BT.flatten();
  const at::Tensor valid = labels.ne(kernels::kIgnoredLabel).nonzero().flatten();
  const auto logits = [&](models::Model& model) {
    return model.hidden({batch.tokens_BT})
        .flatten(0, 1)
        .matmul(model.head().weight_VD.t())
        .index_select(0, valid);
  };
  const at::Tensor z = logits(*twin), teacher = logits(*wide).detach();
  const at::Tensor p = at::softmax(teacher / 2, -1);
  const at::Tensor kl = 4 * (p * (at::log_softmax(teacher / 2, -1) - at::log_softmax(z / 2, -1))).sum();
  const at::Tensor ce = -at::log_softmax(z, -1).gather(1, labels.index_select(0, valid).unsqueeze(1)).sum();
  (0.7 * kl + 0.3 * ce).backward();

  ASSERT_EQ(loss.parts.size(), 2u);
  EXPECT_LT(relative_error(loss.parts[0], kl), 1e-5);
  EXPECT_LT(relative_error(loss.parts[1], ce), 1e-5);
  EXPECT_LT(relative_error(loss.sum, 0.7 * kl + 0.3 * ce), 1e-5);
  for (const models::Parameter& p_student : student->parameters().unique())
    EXPECT_LT(relative_error(p_student.working.grad(), twin->parameters().at(p_student.name).working.grad()),
              1e-4)
        << p_student.name;
}

TEST(Distillation, AStudentThatIsItsTeacherLearnsNothing) {
  std::unique_ptr<models::Decoder> student = tiny_model(1);
  const auto objective = make_distillation(make_live_teacher(tiny_model(1)), {{.fn = "forward_kl"}});
  const train::LossSum loss = (*objective)(*student, sample_batch());
  loss.sum.backward();
  EXPECT_NEAR(loss.sum.item<double>(), 0.0, 1e-5);
  for (const models::Parameter& p : student->parameters().unique())
    EXPECT_LT(p.working.grad().abs().max().item<double>(), 1e-4) << p.name;
}

}  // namespace
}  // namespace retort::distill
