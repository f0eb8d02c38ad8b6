#include "eval/divergence.h"

#include <ATen/Parallel.h>
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

using retort::testing::LookupModel;
using retort::testing::make_decoder;
using retort::testing::random_documents;
using retort::testing::TemporaryDirectory;
using retort::testing::write_corpus;

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

struct Means {
  double kl = 0, agreement = 0;
};
// The definition, position by position, from whole f64 logits.
Means by_hand(models::Model& a, models::Model& b, const data::TokenShards& text, int64_t sequence) {
  const at::NoGradGuard no_grad;
  Means out;
  int64_t positions = 0;
  for (int64_t start = 0; start < text.size(); start += sequence) {
    at::Tensor tokens_T = at::empty({std::min(sequence, text.size() - start)}, at::kLong);
    text.read(start, {tokens_T.mutable_data_ptr<int64_t>(), static_cast<size_t>(tokens_T.numel())});
    const auto distribution = [&](models::Model& model) {
      const at::Tensor h_TD = model.hidden({.tokens_BT = tokens_T.unsqueeze(0)})[0].to(at::kDouble);
      return at::softmax(at::matmul(h_TD, model.head().weight_VD.to(at::kDouble).t()), 1);
    };
    const at::Tensor p_TV = distribution(a), q_TV = distribution(b);
    for (int64_t t = 0; t < tokens_T.numel(); ++t) {
      out.kl += (p_TV[t] * (p_TV[t] / q_TV[t]).log()).sum().item<double>();
      out.agreement += p_TV[t].argmax().item<int64_t>() == q_TV[t].argmax().item<int64_t>() ? 1 : 0;
      ++positions;
    }
  }
  out.kl /= static_cast<double>(positions);
  out.agreement /= static_cast<double>(positions);
  return out;
}

}  // namespace

TEST(Divergence, EqualsTheDefinitionAtEveryPosition) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(1, 12, 30, 256), 50);
  const auto comm = comm::make_self_comm();
  const auto reference = make_decoder(256, 64), candidate = moved(0.3);
  for (const int64_t sequence : {1, 7, 64}) {
    const Divergence got = divergence(*reference, *candidate, *text, sequence, *comm, 0, 3);
    const Means expected = by_hand(*reference, *candidate, *text, sequence);
    EXPECT_NEAR(got.kl.value, expected.kl, 1e-4 * expected.kl)
        << sequence;  // f32 logits of other batch shapes
    EXPECT_EQ(got.agreement.value, expected.agreement) << sequence;
    EXPECT_GT(got.kl.value, 0.01);
    EXPECT_LT(got.agreement.value, 1.0);
    EXPECT_GT(got.agreement.value, 0.0);
  }
}

TEST(Divergence, OfAModelFromItselfIsZeroAndGrowsWithTheDistance) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(2, 6, 30, 256));
  const auto comm = comm::make_self_comm();
  const auto reference = make_decoder(256, 64), same = make_decoder(256, 64);
  const Divergence none = divergence(*reference, *same, *text, 16, *comm);
  EXPECT_EQ(none.kl.value, 0.0);
  EXPECT_EQ(none.agreement.value, 1.0);
  const double near = divergence(*reference, *moved(0.01), *text, 16, *comm).kl.value;
  const double far = divergence(*reference, *moved(0.1), *text, 16, *comm).kl.value;
  EXPECT_GT(near, 0.0);
  EXPECT_GT(far, 10 * near);
}

TEST(Divergence, SeesTheSoftcapAndTheLimit) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(3, 6, 30, 256));
  const auto comm = comm::make_self_comm();
  LookupModel reference(256, 32), capped(256, 32);
  capped.softcap = 2.0;
  EXPECT_GT(divergence(reference, capped, *text, 8, *comm).kl.value, 0.1);
  EXPECT_EQ(divergence(reference, capped, *text, 8, *comm).agreement.value, 1.0);  // a cap keeps the order
  std::vector<int64_t> first(21);
  text->read(0, first);
  const auto part = write_corpus(directory / "part", {std::vector<int32_t>(first.begin(), first.end())});
  const double of_part = divergence(reference, capped, *part, 8, *comm).kl.value;
  EXPECT_EQ(divergence(reference, capped, *text, 8, *comm, 21).kl.value, of_part);
  EXPECT_NE(divergence(reference, capped, *text, 8, *comm).kl.value, of_part);
}

TEST(Divergence, IsTheSameForEveryRankCount) {
  const testing::Threads one_thread(1);
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(4, 12, 40, 256), 60);
  const auto self = comm::make_self_comm();
  const auto reference = make_decoder(256, 64), candidate = moved(0.1);
  const Divergence alone = divergence(*reference, *candidate, *text, 9, *self, 0, 4);
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    std::vector<std::pair<double, double>> got;
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      const auto mine = make_decoder(256, 64), other = moved(0.1);
      const Divergence d = divergence(*mine, *other, *text, 9, comm, 0, 4);
      const std::lock_guard lock(mutex);
      got.emplace_back(d.kl.value, d.agreement.value);
    });
    for (const auto& [kl, agreement] : got) {
      EXPECT_EQ(kl, alone.kl.value) << ranks;
      EXPECT_EQ(agreement, alone.agreement.value) << ranks;
    }
  }
}

TEST(Divergence, IsTheSameForEveryThreadCount) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(5, 12, 40, 256));
  const auto comm = comm::make_self_comm();
  LookupModel reference(1000, 256), capped(1000, 256);  // 256 rows of 1000: a sum that LibTorch divides
  capped.softcap = 2.0;
  for (const LookupModel* model : {&reference, &capped})  // one factor a logit: no product can err
    model->head().weight_VD.narrow(1, 1, 15).zero_();
  const int before = at::get_num_threads();
  const auto with_threads = [&](int threads) {
    at::set_num_threads(threads);
    const double kl = divergence(reference, capped, *text, 256, *comm).kl.value;
    at::set_num_threads(before);
    return kl;
  };
  const double one = with_threads(1);
  for (const int threads : {2, 3, 5}) EXPECT_EQ(with_threads(threads), one) << threads;
}

TEST(Divergence, RefusesWhatCannotBeCompared) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", {std::vector<int32_t>(20, 255)});
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 16), longer(256, 32), small(255, 16), also_small(255, 16);
  EXPECT_THROW(divergence(model, longer, *text, 17, *comm), ConfigError);
  EXPECT_THROW(divergence(model, model, *text, 0, *comm), ConfigError);
  EXPECT_THROW(divergence(model, model, *text, 4, *comm, 0, 0), ConfigError);
  EXPECT_THROW(divergence(model, small, *text, 4, *comm), DataError);
  EXPECT_THROW(divergence(small, also_small, *text, 4, *comm), DataError);
}

}  // namespace retort::eval
