// Distilled beats scratch where it should: the source is known. Text comes from a hidden Markov model, the
// teacher is its exact next-token distribution, and a student is judged by its true KL to that, on text that
// it has not seen. Cross-entropy and forward KL have the same expected gradient here; cross-entropy sees it
// through one sampled label a position, forward KL without that noise. B rows, T tokens, S hidden states, V
// vocabulary.
#include "core/random.h"
#include "distill/objective.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/testing.h"
#include "train/schedule.h"
#include "train/step.h"

namespace retort::distill {
namespace {

class Hmm {
 public:
  Hmm(int64_t states, int64_t vocabulary, double sharpness, uint64_t seed) {
    const auto table = [&](const char* name, at::IntArrayRef shape) {
      at::Tensor x = at::empty(shape);
      Random(seed, name).fill_normal(x, sharpness);
      return at::softmax(x.to(at::kDouble), -1);
    };
    transition_SS_ = table("hmm/transition", {states, states});
    emission_SV_ = table("hmm/emission", {states, vocabulary});
    start_S_ = at::full({states}, 1.0 / static_cast<double>(states), at::kDouble);
    for (int i = 0; i < 200; ++i) start_S_ = start_S_.matmul(transition_SS_);  // stationary
  }

  int64_t vocabulary() const { return emission_SV_.size(1); }
  double probability_of_path(const std::vector<int64_t>& states, const std::vector<int64_t>& tokens) const {
    double p = start_S_[states[0]].item<double>();
    for (size_t t = 0; t < tokens.size(); ++t) {
      if (t > 0) p *= transition_SS_[states[t - 1]][states[t]].item<double>();
      p *= emission_SV_[states[t]][tokens[t]].item<double>();
    }
    return p;
  }

  at::Tensor sample(int64_t rows, int64_t tokens, const Random& random) const {
    at::Tensor tokens_BT = at::empty({rows, tokens}, at::kLong);
    uint64_t draw = 0;
    const auto pick = [&](const at::Tensor& p) {
      const double* values = p.const_data_ptr<double>();
      double left = random.uniform(draw++);
      int64_t i = 0;
      while (i + 1 < p.size(0) && (left -= values[i]) >= 0) ++i;
      return i;
    };
    for (int64_t b = 0; b < rows; ++b) {
      int64_t state = pick(start_S_);
      for (int64_t t = 0; t < tokens; ++t) {
        if (t > 0) state = pick(transition_SS_[state]);
        tokens_BT.mutable_data_ptr<int64_t>()[b * tokens + t] = pick(emission_SV_[state]);
      }
    }
    return tokens_BT;
  }

  // P(token t+1 | tokens 0 .. t) by forward filtering, f64 [B, T, V].
  at::Tensor next_token(const at::Tensor& tokens_BT) const {
    std::vector<at::Tensor> steps;
    at::Tensor state_BS = start_S_.unsqueeze(0);  // P(state t | tokens before t)
    for (int64_t t = 0; t < tokens_BT.size(1); ++t) {
      const at::Tensor joint_BS = state_BS * emission_SV_.index_select(1, tokens_BT.select(1, t)).t();
      state_BS = (joint_BS / joint_BS.sum(-1, true)).matmul(transition_SS_);
      steps.push_back(state_BS.matmul(emission_SV_));
    }
    return at::stack(steps, 1);
  }

 private:
  at::Tensor transition_SS_, emission_SV_, start_S_;
};

// The exact conditional as a teacher: its hidden states are log-probabilities, its head is the identity.
class HmmTeacher final : public Teacher {
 public:
  explicit HmmTeacher(const Hmm& hmm) : hmm_(hmm) {}
  TeacherSignal signal(const data::Batch& batch, const std::vector<int64_t>&) override {
    return {.rows = {.heads = {{hmm_.next_token(batch.tokens_BT).log().to(at::kFloat).flatten(0, 1),
                                at::eye(hmm_.vocabulary())}}}};
  }
  int64_t vocabulary() const override { return hmm_.vocabulary(); }

 private:
  const Hmm& hmm_;
};

constexpr int64_t kTokens = 32, kRows = 16, kSteps = 250;

data::Batch batch_of(const Hmm& hmm, const Random& random, int64_t rows) {
  const at::Tensor tokens = hmm.sample(rows, kTokens + 1, random);
  data::Batch batch;
  batch.tokens_BT = tokens.slice(1, 0, kTokens).contiguous();
  batch.labels_BT = tokens.slice(1, 1).contiguous();
  return batch;
}

// Mean KL(conditional || student) in nats a token, in f64.
double true_kl(models::Model& student, const Hmm& hmm, const at::Tensor& tokens_BT) {
  const at::NoGradGuard no_grad;
  const at::Tensor z = student.hidden({tokens_BT}).matmul(student.head().weight_VD.t()).to(at::kDouble);
  const at::Tensor p = hmm.next_token(tokens_BT);
  return (p * (p.log() - at::log_softmax(z, -1))).sum(-1).mean().item<double>();
}

// A student trained from the seed's weights on the seed's batches with one loss; its true KL.
double trained_with(const std::string& fn, const Hmm& hmm, uint64_t seed) {
  models::Decoder student({.vocabulary = hmm.vocabulary(),
                           .context = kTokens,
                           .layers = 2,
                           .width = 32,
                           .heads = 2,
                           .kv_heads = 2,
                           .head_dim = 16,
                           .ffn_width = 64});
  models::initialise(student.parameters(), "normal", 0.05, seed);
  models::IdentityMap identity;
  models::bind_working(student.parameters(), identity, at::kFloat);
  const auto objective = make_distillation(std::make_unique<HmmTeacher>(hmm), {{.fn = fn}}, student);
  const auto optimizer = train::make_optimizer({.lr = 1e-2, .weight_decay = 0.0}, student.parameters());
  const auto comm = comm::make_self_comm();
  train::TrainStep step({student, identity, *objective, *optimizer, *comm}, /*micro_batches=*/1,
                        /*clip_norm=*/1.0);
  const train::ScheduleOptions schedule{.kind = "linear", .warmup = 20};
  for (int64_t i = 0; i < kSteps; ++i)
    step.run(i, {batch_of(hmm, Random(seed, "hmm/train", static_cast<uint64_t>(i)), kRows)},
             train::learning_rate(schedule, 1e-2, i, kSteps));
  return true_kl(student, hmm, hmm.sample(256, kTokens, Random(0, "hmm/held-out")));
}

TEST(Hmm, FilteringIsTheConditionalDistribution) {
  const Hmm hmm(2, 3, 1.5, 1);
  const auto probability = [&](const std::vector<int64_t>& tokens) {
    double sum = 0;  // over all hidden paths
    for (int path = 0; path < 1 << tokens.size(); ++path) {
      std::vector<int64_t> states;
      for (size_t t = 0; t < tokens.size(); ++t) states.push_back(path >> t & 1);
      sum += hmm.probability_of_path(states, tokens);
    }
    return sum;
  };
  const at::Tensor filtered = hmm.next_token(at::tensor({2, 0, 1, 1}, at::kLong).unsqueeze(0));
  for (int64_t next = 0; next < 3; ++next) {
    EXPECT_NEAR(filtered[0][0][next].item<double>(), probability({2, next}) / probability({2}), 1e-12);
    EXPECT_NEAR(filtered[0][3][next].item<double>(),
                probability({2, 0, 1, 1, next}) / probability({2, 0, 1, 1}), 1e-12);
  }
}

// Labels are drawn, so cross-entropy pays for about (free parameters) / (2 labels) nats of noise however well
// it is optimised; forward KL pays for optimisation only. Measured: .021 to .028 against .004 to .006. Half
// is far from both.
TEST(SlowHmm, ForwardKlComesNearerToTheTruthThanCrossEntropy) {
  const testing::Threads one_thread(1);  // models this small run slower on two
  const Hmm hmm(6, 24, 2.0, 17);
  const at::Tensor p = hmm.next_token(hmm.sample(64, kTokens, Random(0, "hmm/baseline"))).flatten(0, 1);
  const double blind =
      (p * (p / p.mean(0)).log()).sum(-1).mean().item<double>();  // a student that reads nothing
  for (const uint64_t seed : {1, 2, 3}) {
    const double scratch = trained_with("cross_entropy", hmm, seed),
                 distilled = trained_with("forward_kl", hmm, seed);
    fmt::print("seed {}: true KL {:.4f} with cross-entropy, {:.4f} with forward KL; blind {:.4f}\n", seed,
               scratch, distilled, blind);
    EXPECT_LT(scratch, 0.5 * blind) << "a fair opponent has learned to read";
    EXPECT_LT(distilled, 0.5 * scratch);
  }
}

}  // namespace
}  // namespace retort::distill
