#include "eval/drafting.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "core/error.h"
#include "tests/data/corpus.h"
#include "tests/eval/models.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using testing::LookupModel;
using testing::make_decoder;
using testing::random_documents;
using testing::TemporaryDirectory;
using testing::write_corpus;

// make_decoder's model with every matrix moved by a part of itself.
std::unique_ptr<models::Decoder> moved(double by) {
  auto model = make_decoder(256, 64);
  const at::NoGradGuard no_grad;
  for (models::Parameter& p : model->parameters().unique()) {
    if (p.master.dim() != 2) continue;
    at::Tensor noise = at::empty_like(p.master);
    Random(5, "test/" + p.name).fill_normal(noise, by);
    p.master.mul_(1 + noise);
  }
  return model;
}

// A target whose next token depends on the last one alone, and a drafter that is near it.
struct Chain {
  LookupModel target{256, 64}, drafter{256, 64};
  explicit Chain(double noise) {
    at::Tensor moved = at::empty({256, 16});
    Random(2, "test/noise").fill_normal(moved, noise);
    target.head().weight_VD.mul_(0.5);
    drafter.head().weight_VD.mul_(0.5).add_(moved);
  }
  // [V, V]: row i is the distribution after token i.
  static at::Tensor matrix(models::Model& model, double temperature) {
    const at::NoGradGuard no_grad;
    const at::Tensor h_VD = model.hidden({.tokens_BT = at::arange(256).unsqueeze(0)})[0].to(at::kDouble);
    return at::softmax(at::matmul(h_VD, model.head().weight_VD.to(at::kDouble).t()) / temperature, 1);
  }
};

int32_t draw(const at::Tensor& p_V, double point) {
  const at::Tensor until_V = p_V.cumsum(0);
  return static_cast<int32_t>(std::min<int64_t>(
      until_V.le(point * until_V[-1].item<double>()).sum().item<int64_t>(), p_V.size(0) - 1));
}

std::vector<int32_t> drawn_text(const at::Tensor& p_VV, int64_t tokens) {
  const Random random(4, "test/text");
  std::vector<int32_t> out = {65};
  while (static_cast<int64_t>(out.size()) < tokens)
    out.push_back(draw(p_VV[out.back()], random.uniform(out.size())));
  return out;
}

// Tokens a round of speculative decoding by its rule.
double played_out(const at::Tensor& p_VV, const at::Tensor& q_VV, int64_t drafted, int64_t rounds) {
  const Random random(5, "test/rounds");
  uint64_t drawn = 0;
  int32_t last = 65;
  double tokens = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    bool refused = false;
    for (int64_t k = 0; k < drafted && !refused; ++k) {
      const at::Tensor p_V = p_VV[last], q_V = q_VV[last];
      const int32_t token = draw(q_V, random.uniform(drawn++));
      refused = random.uniform(drawn++) >= (p_V[token] / q_V[token]).item<double>();
      last = refused ? draw((p_V - q_V).clamp_min(0), random.uniform(drawn++)) : token;
      tokens += 1;
    }
    if (refused) continue;
    last = draw(p_VV[last], random.uniform(drawn++));
    tokens += 1;
  }
  return tokens / static_cast<double>(rounds);
}

std::vector<double> values(const Drafting& d) {
  std::vector<double> out;
  for (const Estimate* e : {&d.acceptance, &d.agreement, &d.tokens_per_round, &d.greedy_tokens_per_round})
    out.insert(out.end(), {e->value, e->standard_error});
  return out;
}

}  // namespace

// The definitions, position by position, from whole f64 logits.
TEST(Drafting, EqualsItsDefinitions) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(1, 12, 30, 256), 50);
  const auto comm = comm::make_self_comm();
  const auto target = make_decoder(256, 64), drafter = moved(0.3);
  constexpr int64_t kSequence = 7, kDrafted = 3;
  constexpr double kTemperature = 1.7;
  double acceptance = 0, agreed = 0, positions = 0;
  Rounds drawn, greedy;
  const at::NoGradGuard no_grad;
  for (int64_t start = 0; start < text->size(); start += kSequence) {
    at::Tensor ids_T = at::empty({std::min(kSequence, text->size() - start)}, at::kLong);
    text->read(start, {ids_T.mutable_data_ptr<int64_t>(), static_cast<size_t>(ids_T.numel())});
    const auto logits = [&](models::Model& model) {
      const at::Tensor h_TD = model.hidden({.tokens_BT = ids_T.unsqueeze(0)})[0].to(at::kDouble);
      return at::matmul(h_TD, model.head().weight_VD.to(at::kDouble).t());
    };
    const at::Tensor p_TV = at::softmax(logits(*target) / kTemperature, 1),
                     q_TV = at::softmax(logits(*drafter) / kTemperature, 1);
    std::vector<double> accepts, agrees;
    for (int64_t t = 0; t < ids_T.numel(); ++t) {
      accepts.push_back(at::minimum(p_TV[t], q_TV[t]).sum().item<double>());
      agrees.push_back(p_TV[t].argmax().item<int64_t>() == q_TV[t].argmax().item<int64_t>() ? 1 : 0);
      acceptance += accepts.back(), agreed += agrees.back(), positions += 1;
    }
    for (auto& [chances, into] : {std::pair(accepts, &drawn), std::pair(agrees, &greedy)}) {
      const Rounds window = expected_rounds(chances, kDrafted);
      into->tokens += window.tokens, into->rounds += window.rounds;
    }
  }
  for (const int64_t rows : {1, 3, 16}) {
    const Drafting got =
        drafting(*target, *drafter, *text, kSequence, {kDrafted, kTemperature}, *comm, 0, rows);
    EXPECT_NEAR(got.acceptance.value, acceptance / positions, 1e-5) << rows;  // f32 hidden states
    EXPECT_EQ(got.agreement.value, agreed / positions) << rows;
    EXPECT_NEAR(got.tokens_per_round.value, drawn.tokens / drawn.rounds, 1e-4) << rows;
    EXPECT_DOUBLE_EQ(got.greedy_tokens_per_round.value, greedy.tokens / greedy.rounds) << rows;
    EXPECT_GT(got.acceptance.standard_error, 0.0);
    EXPECT_GT(got.acceptance.value, 0.1);
    EXPECT_LT(got.acceptance.value, 0.95);
  }
}

TEST(Drafting, RoundsFollowEachOther) {
  const double a = 0.3, b = 0.8, c = 0.6;
  const Rounds two =
      expected_rounds(std::vector<double>{a, b, c}, 2);  // one begins at 0, one at 1 if a is refused
  EXPECT_DOUBLE_EQ(two.rounds, 1 + (1 - a));
  EXPECT_DOUBLE_EQ(two.tokens, 2 * (1 - b) + 3 * (a * b + (1 - a) * b * (1 - c)) + 4 * (1 - a) * b * c);
  EXPECT_EQ(expected_rounds(std::vector<double>{a, b}, 3).rounds, 0.0);
  for (const int64_t drafted : {1, 3, 6}) {  // chances that are all alike: the formula (Wald's identity)
    const Rounds same = expected_rounds(std::vector<double>(20, a), drafted);
    EXPECT_NEAR(same.tokens / same.rounds, geometric_tokens({a, 0}, drafted).value, 1e-12);
    const Rounds all = expected_rounds(std::vector<double>(20, 1.0), drafted);
    EXPECT_DOUBLE_EQ(all.tokens / all.rounds, static_cast<double>(drafted + 1));
  }
  std::vector<double> runs(400, 0.2);  // hard and easy runs of positions: their mean says too little
  for (size_t t = 0; t < runs.size(); ++t)
    if (t / 20 % 2 == 0) runs[t] = 0.9;
  const Rounds apart = expected_rounds(runs, 4);
  EXPECT_LT(apart.tokens / apart.rounds, 0.95 * geometric_tokens({0.55, 0}, 4).value);
}

// Against rounds that are played out by the rule, token by token. What a window knows is the chance at each of its
// contexts, not how it depends on which token was accepted before: here that is under 3 %.
TEST(Drafting, IsNearRoundsThatArePlayedOut) {
  const TemporaryDirectory directory;
  const auto comm = comm::make_self_comm();
  Chain chain(0.3);
  constexpr int64_t kDrafted = 4;
  const at::Tensor p_VV = Chain::matrix(chain.target, 1), q_VV = Chain::matrix(chain.drafter, 1);
  const std::vector<int32_t> ids = drawn_text(p_VV, 24000);
  const auto text = write_corpus(directory / "c", {ids});
  const Drafting got = drafting(chain.target, chain.drafter, *text, 64, {kDrafted, 1.0}, *comm);
  const double played = played_out(p_VV, q_VV, kDrafted, 12000);
  EXPECT_NEAR(got.tokens_per_round.value, played, 0.03 * played);
}

// Of the likeliest tokens rounds are exact on the target's own text.
TEST(Drafting, GivesTheTokensOfGreedyRounds) {
  const TemporaryDirectory directory;
  const auto comm = comm::make_self_comm();
  Chain chain(0.2);
  const at::Tensor p_V = Chain::matrix(chain.target, 1).argmax(1),
                   q_V = Chain::matrix(chain.drafter, 1).argmax(1);
  std::vector<int32_t> ids;
  for (int32_t first = 0; first < 256; ++first) {  // windows of 16, each from a token of its own
    ids.push_back(first);
    for (int i = 1; i < 16; ++i) ids.push_back(p_V[ids.back()].item<int32_t>());
  }
  const auto text = write_corpus(directory / "c", {ids});
  constexpr size_t kDrafted = 4;
  double tokens = 0, rounds = 0;
  for (size_t window = 0; window < ids.size(); window += 16)
    for (size_t t = window; t + kDrafted <= window + 16; ++rounds) {
      int32_t draft = ids[t], said = ids[t];
      size_t accepted = 0;
      while (accepted < kDrafted) {
        draft = q_V[draft].item<int32_t>(), said = p_V[said].item<int32_t>();
        if (draft != said) break;
        ++accepted;
      }
      tokens += static_cast<double>(accepted + 1), t += accepted + 1;
    }
  const Drafting got = drafting(chain.target, chain.drafter, *text, 16, {kDrafted, 1.0}, *comm);
  EXPECT_DOUBLE_EQ(got.greedy_tokens_per_round.value, tokens / rounds);
  EXPECT_GT(got.greedy_tokens_per_round.value, 1.2);
  EXPECT_LT(got.greedy_tokens_per_round.value, 4.8);
}

TEST(Drafting, AModelDraftsForItselfWithoutLoss) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(2, 6, 30, 256));
  const auto comm = comm::make_self_comm();
  const auto target = make_decoder(256, 64), same = make_decoder(256, 64);
  const Drafting own = drafting(*target, *same, *text, 16, {5, 0.7}, *comm);
  EXPECT_NEAR(own.acceptance.value, 1.0, 1e-12);
  EXPECT_EQ(own.agreement.value, 1.0);
  EXPECT_NEAR(own.tokens_per_round.value, 6.0, 1e-12);
  EXPECT_EQ(own.greedy_tokens_per_round.value, 6.0);
  EXPECT_GT(own.acceptance.value,
            drafting(*target, *moved(0.3), *text, 16, {5, 0.7}, *comm).acceptance.value);
}

TEST(Drafting, TheGeometricFormulaHasItsSlope) {
  const double a = 0.7, step = 1e-6;
  EXPECT_NEAR(geometric_tokens({a, 0}, 4).value, (1 - std::pow(a, 5)) / (1 - a), 1e-12);
  EXPECT_EQ(geometric_tokens({1, 0}, 4).value, 5.0);
  const double slope = (geometric_tokens({a + step, 0}, 4).value - geometric_tokens({a, 0}, 4).value) / step;
  EXPECT_NEAR(geometric_tokens({a, 0.01}, 4).standard_error, 0.01 * slope, 1e-6);
}

TEST(Drafting, IsTheSameForEveryRankCountAndOfAnyBatch) {
  const testing::Threads one_thread(1);
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(4, 12, 40, 256), 60);
  const auto self = comm::make_self_comm();
  const auto target = make_decoder(256, 64), drafter = moved(0.1);
  const std::vector<double> alone = values(drafting(*target, *drafter, *text, 9, {3, 1.0}, *self, 0, 4));
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      const auto mine = make_decoder(256, 64), other = moved(0.1);
      const std::vector<double> got = values(drafting(*mine, *other, *text, 9, {3, 1.0}, comm, 0, 4));
      const std::lock_guard lock(mutex);
      EXPECT_EQ(got, alone) << ranks;
    });
  }
  Chain chain(0.3);  // hidden states that no shape of a pass can change
  const std::vector<double> one =
      values(drafting(chain.target, chain.drafter, *text, 9, {3, 1.0}, *self, 0, 1));
  for (const int64_t rows : {2, 5, 64})
    EXPECT_EQ(values(drafting(chain.target, chain.drafter, *text, 9, {3, 1.0}, *self, 0, rows)), one) << rows;
}

TEST(Drafting, RefusesWhatCannotBeMeasured) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", {std::vector<int32_t>(20, 255)});
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 16), longer(256, 32), small(255, 16), large(300, 16);
  EXPECT_THROW(drafting(model, longer, *text, 17, {}, *comm), ConfigError);
  EXPECT_THROW(drafting(model, model, *text, 3, {.drafted = 4}, *comm), ConfigError);
  EXPECT_THROW(drafting(model, model, *text, 8, {.temperature = 0}, *comm), ConfigError);
  EXPECT_THROW(drafting(model, model, *text, 8, {}, *comm, 3), ConfigError);
  for (LookupModel* other : {&small, &large})
    EXPECT_THROW(drafting(model, *other, *text, 8, {}, *comm), DataError);
}

}  // namespace retort::eval
