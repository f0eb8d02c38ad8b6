#include "distill/objective.h"

#include "core/random.h"
#include "distill/labels.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/testing.h"
#include "train/step.h"

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
      : signal_{.rows = {.heads = {{std::move(hidden_ND), at::eye(vocabulary)}}}}, calls_(calls) {}
  TeacherSignal signal(const data::Batch&, const std::vector<int64_t>&) override {
    ++*calls_;
    return signal_;
  }
  int64_t vocabulary() const override { return signal_.rows.heads.front().head.weight_VD.size(0); }

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
  const auto student = tiny_model(2);
  const auto objective = make_distillation(
      make_live_teacher(tiny_model(1)),
      {{.fn = "forward_kl"}, {.fn = "cross_entropy"}, {.fn = "forward_kl", .temperature = 2.0}}, *student);
  EXPECT_EQ(objective->part_names(),
            (std::vector<std::string>{"forward_kl", "cross_entropy", "forward_kl_2"}));
}

TEST(Distillation, WrongListsAreRefused) {
  const auto student = tiny_model(2);
  const auto refusal = [&](std::unique_ptr<Teacher> teacher, const std::vector<LossOptions>& losses) {
    return message_of([&] { make_distillation(std::move(teacher), losses, *student); });
  };
  EXPECT_EQ(refusal(make_live_teacher(tiny_model(1)), {})
                .rfind("[distill] losses must not be empty; known: forward_kl", 0),
            0u);
  EXPECT_EQ(refusal(nullptr, {{.fn = "forward_kl"}}),
            "[distill] forward_kl needs a teacher, and there is none");
  EXPECT_NE(refusal(nullptr, {{.fn = "forwrd_kl"}}).find("did you mean \"forward_kl\""), std::string::npos);
  EXPECT_EQ(refusal(nullptr, {{.fn = "cross_entropy", .schedule = WeightSchedule{.kind = "linear"}}}),
            "[distill] a schedule's end must lie after its begin 0, got 0");
}

// The teacher, the same model as the student's, knows nothing of the student's noise.
TEST(Distillation, NoiseIsTheStudentsAlone) {
  const auto student = tiny_model(2);
  data::Batch batch = sample_batch();
  batch.samples = {0, 1, 2};
  const at::Tensor logits_ND =
      at::matmul(student->hidden({batch.tokens_BT}), student->head().weight_VD.t()).flatten(0, 1).detach();
  int calls = 0;
  const auto sum = [&](std::unique_ptr<Teacher> teacher, const train::EmbeddingNoise& noise) {
    const auto objective = make_distillation(std::move(teacher), {{.fn = "forward_kl"}}, *student, 0, noise);
    return (*objective)(*student, batch).sum.item<double>();
  };
  const auto fixed = [&] { return std::make_unique<FixedTeacher>(logits_ND, kVocabulary, &calls); };
  EXPECT_NEAR(sum(make_live_teacher(tiny_model(2)), {}), 0.0, 1e-5);
  for (const double alpha : {5.0, 15.0}) {
    const train::EmbeddingNoise noise{alpha, 3};
    const double expected = sum(fixed(), noise);
    EXPECT_GT(expected, 1e-2);
    EXPECT_NEAR(sum(make_live_teacher(tiny_model(2)), noise), expected, 1e-4 * expected);
  }
  EXPECT_EQ(calls, 2);
}

// A teacher that has labels only.
class LabelTeacher final : public Teacher {
 public:
  explicit LabelTeacher(SignalKind kind, kernels::SparseLabels labels = {})
      : kind_(std::move(kind)), labels_(std::move(labels)) {}
  TeacherSignal signal(const data::Batch&, const std::vector<int64_t>&) override {
    return {.rows = {.labels = labels_}};
  }
  SignalKind kind() const override { return kind_; }
  int64_t vocabulary() const override { return kVocabulary; }

 private:
  SignalKind kind_;
  kernels::SparseLabels labels_;
};

// Every loss that wants something of a teacher gets a teacher of labels of one kind at most, and says what it
// misses.
TEST(Distillation, LabelsServeTheLossesThatReadThem) {
  const auto student = tiny_model(2);
  const auto refusal = [&](const SignalKind& kind, const LossOptions& loss) {
    return message_of([&] { make_distillation(std::make_unique<LabelTeacher>(kind), {loss}, *student); });
  };
  for (const LossSpec& spec : losses())
    for (const char* kind : {"sampled", "top_k"}) {
      const bool serves = !spec.needs_teacher() ||
                          (spec.reads == Reads::kDraws && kind == std::string("sampled")) ||
                          (spec.reads == Reads::kTop && kind == std::string("top_k"));
      EXPECT_EQ(refusal({kind, 20, 1.0}, {.fn = spec.name}) == "no ConfigError", serves)
          << spec.name << " from " << kind;
    }
  EXPECT_EQ(refusal({"sampled", 20, 2.0}, {.fn = "sampled"}),
            "[distill] sampled: temperature must be that of the teacher's labels, 2, got 1");
  EXPECT_EQ(refusal({"sampled", 20, 1.0}, {.fn = "sampled", .draws = 50}),
            "[distill] sampled: draws must be the cache's 20 or 0, got 50");
  EXPECT_EQ(refusal({"top_k", 20, 1.0}, {.fn = "top_k_ghost", .k = 21}),
            "[distill] top_k_ghost: k must be at most the cache's 20, got 21");
}

// Labels that a live teacher would have drawn make the same loss as the live teacher.
TEST(Distillation, CachedLabelsAreTheLiveTeachersOwn) {
  data::Batch batch = sample_batch();
  batch.corpus_BT = at::arange(24).view({3, 8}) + 1000;
  const auto loss_of = [&](std::unique_ptr<Teacher> teacher, const LossOptions& options) {
    const auto student = tiny_model(2);
    return (*make_distillation(std::move(teacher), {options}, *student))(*student, batch).sum.item<double>();
  };
  auto live = tiny_model(1);
  const at::Tensor z =
      live->hidden({batch.tokens_BT}).flatten(0, 1).matmul(live->head().weight_VD.t()).detach();
  const kernels::SparseLabels drawn = draw_labels(softened(z, 1.0), 50, 0, batch.corpus_BT.flatten());
  const LossOptions sampled{.fn = "sampled"}, top{.fn = "top_k_ghost", .k = 5};
  EXPECT_NEAR(loss_of(std::make_unique<LabelTeacher>(SignalKind{"sampled", 50, 1.0}, drawn), sampled),
              loss_of(make_live_teacher(tiny_model(1)), sampled), 1e-3);
  const kernels::SparseLabels likeliest = top_labels({{}, z, {}}, 9, 1.0);
  EXPECT_NEAR(loss_of(std::make_unique<LabelTeacher>(SignalKind{"top_k", 9, 1.0}, likeliest), top),
              loss_of(make_live_teacher(tiny_model(1)), top), 1e-3);
}

// A padded head of the teacher's changes nothing, not in a bit.
TEST(Distillation, PaddingOfTheTeachersHeadIsCut) {
  int calls = 0;
  at::Tensor logits = at::empty({24, kVocabulary});
  Random(1, "test/teacher").fill_normal(logits, 1.0);
  const auto loss = [&](int64_t padding) {
    const at::Tensor padded = at::cat({logits, at::full({24, padding}, 9.0)}, 1);
    const auto student = tiny_model(2);
    const auto objective =
        make_distillation(std::make_unique<FixedTeacher>(padded, kVocabulary + padding, &calls),
                          {{.fn = "forward_kl"}}, *student);
    return (*objective)(*student, sample_batch()).sum.item<float>();
  };
  EXPECT_GT(loss(0), 1.0f);
  EXPECT_EQ(loss(0), loss(8));
}

TEST(Distillation, ATeacherThatIsNotFiniteIsNamedByTheToken) {
  int calls = 0;
  std::unique_ptr<models::Decoder> student = tiny_model(2);
  at::Tensor hidden = at::zeros({24, kVocabulary});
  hidden[13][2] = NAN;
  const auto objective = make_distillation(std::make_unique<FixedTeacher>(hidden, kVocabulary, &calls),
                                           {{.fn = "forward_kl"}}, *student);
  data::Batch batch = sample_batch();
  const auto error = [&] {
    try {
      (*objective)(*student, batch);
    } catch (const NonFiniteError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(error().find("not finite at row 1, token 5"), std::string::npos) << error();
  batch.corpus_BT = at::arange(900, 924).view({3, 8});
  EXPECT_NE(error().find("not finite at token 913 of the text"), std::string::npos) << error();
  hidden[13][2] = 3e38;  // finite, and its sum with others is not
  hidden[14][2] = 3e38;
  EXPECT_EQ(error(), "no error");
}

TEST(Distillation, TheTeacherRunsOnlyWhenALossNeedsIt) {
  int calls = 0;
  const auto teacher = [&] {
    return std::make_unique<FixedTeacher>(at::zeros({24, kVocabulary}), kVocabulary, &calls);
  };
  std::unique_ptr<models::Decoder> student = tiny_model(2);
  const auto plain = make_distillation(teacher(), {{.fn = "cross_entropy"}}, *student);
  (*plain)(*student, sample_batch());
  EXPECT_EQ(calls, 0);

  const auto distilled = make_distillation(teacher(), {{.fn = "forward_kl"}}, *student);
  (*distilled)(*student, sample_batch());
  EXPECT_EQ(calls, 1);
}

// Against full logits and plain autograd: values, parts, and every gradient of the student; none of the
// teacher.
TEST(Distillation, EqualsThePlainSum) {
  std::unique_ptr<models::Decoder> student = tiny_model(2), twin = tiny_model(2), wide = tiny_model(1, 24);
  const data::Batch batch = sample_batch();
  const auto objective = make_distillation(
      make_live_teacher(tiny_model(1, 24)),
      {{.fn = "forward_kl", .weight = 0.7, .temperature = 2.0}, {.fn = "cross_entropy", .weight = 0.3}},
      *student);
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
  const auto objective =
      make_distillation(make_live_teacher(tiny_model(1)), {{.fn = "forward_kl"}}, *student);
  const train::LossSum loss = (*objective)(*student, sample_batch());
  loss.sum.backward();
  EXPECT_NEAR(loss.sum.item<double>(), 0.0, 1e-5);
  for (const models::Parameter& p : student->parameters().unique())
    EXPECT_LT(p.working.grad().abs().max().item<double>(), 1e-4) << p.name;
}

// All losses at once, on rows and on layers: the named parts, weighted, are the sum.
TEST(Distillation, AnyLossesCombine) {
  const auto student = tiny_model(2);
  std::vector<LossOptions> list;
  for (const LossSpec& spec : losses())
    list.push_back({.fn = spec.name, .weight = 0.5 + 0.1 * static_cast<double>(list.size())});
  data::Batch batch = sample_batch();
  batch.corpus_BT = at::arange(24).view({3, 8});
  const auto objective = make_distillation(make_live_teacher(tiny_model(1, 24)), list, *student);
  const train::LossSum loss = (*objective)(*student, batch);
  EXPECT_EQ(objective->part_names(), losses().names());
  ASSERT_EQ(loss.parts.size(), list.size());
  double sum = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_GT(loss.parts[i].item<double>(), 0.0) << list[i].fn;
    sum += list[i].weight * loss.parts[i].item<double>();
  }
  EXPECT_NEAR(loss.sum.item<double>(), sum, 1e-5 * sum);
  loss.sum.backward();
  ASSERT_EQ(objective->learned()->unique().size(), 4u);  // projections of two losses, a pair of layers each
  const train::Trained trained(student->parameters(), objective->learned());
  for (const models::Parameter* p : trained.all()) EXPECT_TRUE(p->working.grad().defined()) << p->name;
}

TEST(Distillation, WeightsFollowTheStep) {
  const auto student = tiny_model(2);
  const auto objective = make_distillation(
      make_live_teacher(tiny_model(1)),
      {{.fn = "forward_kl", .weight = 1.0, .schedule = WeightSchedule{"linear", 0.0, 0, 10}},
       {.fn = "hidden_mse", .weight = 0.0, .schedule = WeightSchedule{"linear", 2.0, 0, 10}}},
      *student);
  for (const int64_t step : {0, 5, 10, 5}) {  // back again: nothing is remembered
    objective->begin_step(step);
    const train::LossSum loss = (*objective)(*student, sample_batch());
    const double x = static_cast<double>(step) / 10;
    EXPECT_NEAR(loss.sum.item<double>(),
                (1 - x) * loss.parts[0].item<double>() + 2 * x * loss.parts[1].item<double>(),
                1e-5 * loss.parts[0].item<double>());
  }
}

// Each loss through the whole step: one rank with two micro-batches and two ranks with one give the same
// bits.
TEST(Distillation, HowMicroBatchesAreSplitDoesNotChangeABit) {
  const testing::Threads one_thread(1);
  for (const LossSpec& spec : losses()) {
    const auto train = [&](comm::Comm& comm, int64_t micro_batches) {
      const auto student = tiny_model(2);
      const auto objective =
          make_distillation(make_live_teacher(tiny_model(1, 24)),
                            {{.fn = spec.name}, {.fn = "cross_entropy", .weight = 0.1}}, *student);
      models::IdentityMap map;
      models::bind_working(student->parameters(), map, at::kFloat);
      const train::Trained trained(student->parameters(), objective->learned());
      const auto optimizer = train::make_optimizer({.lr = 1e-2}, trained);
      train::TrainStep step({*student, map, *objective, *optimizer, comm}, micro_batches, 1.0);
      for (int64_t s = 0; s < 2; ++s) {
        std::vector<data::Batch> batches;
        for (int64_t i = 0; i < micro_batches; ++i) {
          const int64_t number = comm.rank() * micro_batches + i;
          data::Batch batch;
          batch.corpus_BT = at::arange(16).view({2, 8}) + 100 * number;
          batch.tokens_BT = (batch.corpus_BT * 7 + s) % 31;
          batch.labels_BT = (batch.tokens_BT + 1) % kVocabulary;
          batch.labels_BT.narrow(1, 0, 1 + number).fill_(kernels::kIgnoredLabel);
          batches.push_back(batch);
        }
        step.run(s, batches, 1e-2);
      }
      std::vector<at::Tensor> weights;
      for (const models::Parameter* p : trained.all()) weights.push_back(p->master.clone());
      return weights;
    };
    const auto alone = train(*comm::make_self_comm(), 2);
    std::vector<std::vector<at::Tensor>> ranks(2);
    comm::run_thread_ranks(
        2, [&](comm::Comm& comm) { ranks[static_cast<size_t>(comm.rank())] = train(comm, 1); });
    for (size_t i = 0; i < alone.size(); ++i) {
      EXPECT_TRUE(testing::same_bits(ranks[0][i], alone[i])) << spec.name << ", tensor " << i;
      EXPECT_TRUE(testing::same_bits(ranks[1][i], alone[i])) << spec.name << ", tensor " << i;
    }
  }
}

}  // namespace
}  // namespace retort::distill
