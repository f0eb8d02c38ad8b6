#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <numbers>

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

// The rule in words, one token at a time: f64 logits from the hidden state of the last token before it within
// the window, every window by itself. `bound` is what f32 logits and a loss in f32 may add.
struct Expected {
  double nats = 0, bound = 0;
};

Expected by_hand(models::Model& model, const std::vector<int64_t>& text, int64_t sequence) {
  const at::NoGradGuard no_grad;
  const models::Head head = model.head();
  const at::Tensor weight_VD = head.weight_VD.to(at::kDouble);
  const double eps = std::ldexp(1.0, -24), width = static_cast<double>(model.width());
  Expected out{std::log(static_cast<double>(model.vocabulary())), 0};
  const auto size = static_cast<int64_t>(text.size());
  for (int64_t start = 0; start < size; start += sequence) {
    const int64_t begin = std::max<int64_t>(start - 1, 0), end = std::min(start + sequence, size);
    if (end - begin < 2) continue;
    const at::Tensor tokens_T =
        at::tensor(at::ArrayRef(text).slice(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
    const at::Tensor h_TD =
        model.hidden({.tokens_BT = tokens_T.narrow(0, 0, end - begin - 1).unsqueeze(0)})[0].to(at::kDouble);
    at::Tensor logits_TV = at::matmul(h_TD, weight_VD.t());
    if (head.softcap > 0) logits_TV = at::tanh(logits_TV / head.softcap) * head.softcap;
    const at::Tensor labels_T = tokens_T.narrow(0, 1, end - begin - 1);
    const at::Tensor nats_T = -at::log_softmax(logits_TV, 1).gather(1, labels_T.unsqueeze(1));
    out.nats += nats_T.sum().item<double>();
    // A product of width D errs by D eps |h||w|, twice (label and normaliser); the softmax by a few eps of
    // its sum.
    const at::Tensor magnitude_T = std::get<0>(at::matmul(h_TD.abs(), weight_VD.abs().t()).max(1));
    out.bound +=
        eps * (2 * (width + 4) * magnitude_T.sum().item<double>() + 16 * nats_T.abs().sum().item<double>());
  }
  return out;
}

std::vector<int64_t> ids(const data::TokenShards& text, int64_t count) {
  std::vector<int64_t> out(static_cast<size_t>(count));
  text.read(0, out);
  return out;
}

}  // namespace

TEST(Perplexity, EqualsTheRuleAppliedByHand) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(1, 12, 30, 256), 50);
  const auto comm = comm::make_self_comm();
  const auto model = make_decoder(256, 64);
  for (const int64_t sequence : {1, 2, 7, 16, 64}) {
    const TextScore score = score_text(*model, *text, sequence, *comm, 0, 3);
    const Expected expected = by_hand(*model, ids(*text, text->size()), sequence);
    // Batches of another shape round the hidden states differently: their error is of the logits' order.
    EXPECT_NEAR(score.nats, expected.nats, 4 * expected.bound) << sequence;
    EXPECT_LT(4 * expected.bound, 1e-4 * expected.nats);  // the bound says something
    EXPECT_EQ(score.tokens, text->size());
    EXPECT_EQ(score.bytes, text->text_bytes());
    EXPECT_DOUBLE_EQ(score.perplexity(), std::exp(score.nats / static_cast<double>(score.tokens)));
    EXPECT_DOUBLE_EQ(score.bits_per_byte(),
                     score.nats / std::numbers::ln2 / static_cast<double>(text->text_bytes()));
  }
}

TEST(Perplexity, TheHeadIsSoftcapped) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(2, 5, 30, 256));
  LookupModel model(256, 32);
  const auto comm = comm::make_self_comm();
  const double plain = score_text(model, *text, 8, *comm).nats;
  model.softcap = 2.0;
  const Expected expected = by_hand(model, ids(*text, text->size()), 8);
  const double capped = score_text(model, *text, 8, *comm).nats;
  EXPECT_NEAR(capped, expected.nats, expected.bound);
  EXPECT_GT(std::abs(plain - capped), 1.0);
}

TEST(Perplexity, IsTheSameForEveryRankCount) {
  const testing::Threads one_thread(1);
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(3, 12, 40, 256), 60);
  const auto self = comm::make_self_comm();
  for (const int64_t rows : {1, 4, 100}) {  // more ranks than batches, too
    const auto model = make_decoder(256, 64);
    const double alone = score_text(*model, *text, 9, *self, 0, rows).nats;
    for (const int ranks : {1, 2, 3}) {
      std::mutex mutex;
      std::vector<double> nats;
      comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
        const auto mine = make_decoder(256, 64);
        const double got = score_text(*mine, *text, 9, comm, 0, rows).nats;
        const std::lock_guard lock(mutex);
        nats.push_back(got);
      });
      EXPECT_EQ(nats, std::vector<double>(static_cast<size_t>(ranks), alone))
          << ranks << " ranks, " << rows << " rows";
    }
  }
}

TEST(Perplexity, RowsOfABatchChangeNothingButTheModelsRounding) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(4, 12, 40, 256), 60);
  const auto self = comm::make_self_comm();
  LookupModel exact(256, 64);  // hidden states without arithmetic: bit for bit
  const double one = score_text(exact, *text, 10, *self, 0, 1).nats;
  for (const int64_t rows : {2, 5, 1000}) EXPECT_EQ(score_text(exact, *text, 10, *self, 0, rows).nats, one);
  const auto decoder = make_decoder(256, 64);
  const Expected expected = by_hand(*decoder, ids(*text, text->size()), 10);
  for (const int64_t rows : {1, 2, 5, 1000})
    EXPECT_NEAR(score_text(*decoder, *text, 10, *self, 0, rows).nats, expected.nats, 4 * expected.bound);
}

TEST(Perplexity, ALimitScoresTheFirstTokensAndTheirShareOfTheBytes) {
  const TemporaryDirectory directory;
  data::TokenShardWriter writer(local_files(), directory / "c", *data::make_byte_tokenizer(), "test");
  writer.add(std::vector<int32_t>(100, 65), 300);  // as if a token stood for three bytes
  writer.finish();
  const data::TokenShards text(directory / "c");
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 64);
  const TextScore part = score_text(model, text, 8, *comm, 21, 2);
  const Expected expected = by_hand(model, ids(text, 21), 8);
  EXPECT_NEAR(part.nats, expected.nats, expected.bound);
  EXPECT_EQ(part.tokens, 21);
  EXPECT_EQ(part.bytes, 63u);
  EXPECT_EQ(score_text(model, text, 8, *comm, 1000, 2).tokens, 100);
  EXPECT_DOUBLE_EQ(score_text(model, text, 8, *comm, 1, 2).nats, std::log(256.0));  // the first token alone
}

// The standard error against its definition: windows drawn again and again from the ones there are, in f64.
TEST(Perplexity, TheErrorIsThatOfWindowsDrawnAnew) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(6, 200, 40, 256));
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 64);
  const int64_t sequence = 16;
  const TextScore score = score_text(model, *text, sequence, *comm);
  // The windows' own nats: what each adds to the score of the text before it.
  std::vector<double> nats, tokens;
  double before = 0;
  for (int64_t end = sequence; end - sequence < text->size(); end += sequence) {
    const TextScore part = score_text(model, *text, sequence, *comm, std::min(end, text->size()));
    nats.push_back(part.nats - before);
    tokens.push_back(static_cast<double>(std::min(sequence, text->size() - (end - sequence))));
    before = part.nats;
  }
  const Random random(1, "test/bootstrap");
  const auto windows = static_cast<uint64_t>(nats.size());
  constexpr int kDraws = 4000;
  double mean = 0, squares = 0;
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    double x = 0, n = 0;
    for (uint64_t w = 0; w < windows; ++w) {
      const auto chosen = static_cast<size_t>(random.below(draw * windows + w, windows));
      x += nats[chosen];
      n += tokens[chosen];
    }
    mean += x / n / kDraws;
    squares += x / n * (x / n) / kDraws;
  }
  const double drawn = std::sqrt(squares - mean * mean);
  ASSERT_GT(windows, 200u);
  EXPECT_NEAR(score.error, drawn, 0.06 * drawn);  // 4000 draws err by 1.1%, the linear part by some 1/windows
  EXPECT_TRUE(std::isnan(score_text(model, *text, sequence, *comm, sequence).error));
}

// Two windows by hand, the second one shorter.
TEST(Perplexity, TheErrorCountsWindowsByTheirTokens) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", random_documents(7, 3, 40, 256));
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 64);
  const double first = score_text(model, *text, 10, *comm, 10, 1).nats;
  const TextScore both = score_text(model, *text, 10, *comm, 14, 1);
  const double ratio = both.nats / 14, d1 = first - 10 * ratio, d2 = both.nats - first - 4 * ratio;
  EXPECT_NEAR(both.error, std::sqrt(2 * (d1 * d1 + d2 * d2)) / 14, 1e-9);
}

// Of conversations only learned tokens count, each document alone: the documents one by one, unpacked, in f64.
TEST(Perplexity, OfATextWithALossMaskCountsLearnedTokensOfEachDocument) {
  const TemporaryDirectory directory;
  const testing::Documents documents = random_documents(8, 40, 14, 256);
  data::TokenShardWriter writer(local_files(), directory / "c", *data::make_byte_tokenizer(), "test",
                                data::kShardTokens, /*loss_mask=*/true);
  for (const auto& document : documents) {  // the first half is a prompt
    const auto read = document.size() / 2;
    writer.add(std::span(document).first(read), read, false, false);
    writer.add(std::span(document).subspan(read), document.size() - read, true, true);
  }
  writer.finish();
  const data::TokenShards text(directory / "c");
  const auto model = make_decoder(256, 64);
  const at::NoGradGuard no_grad;
  double nats = 0;
  int64_t learned = 0;
  for (const auto& document : documents) {
    const auto size = static_cast<int64_t>(document.size()), first = std::max<int64_t>(size / 2, 1);
    if (size < 2) continue;
    const at::Tensor tokens_T = at::tensor(std::vector<int64_t>(document.begin(), document.end()));
    const at::Tensor h_TD = model->hidden({.tokens_BT = tokens_T.unsqueeze(0)})[0].to(at::kDouble);
    const at::Tensor log_p_TV =
        at::log_softmax(at::matmul(h_TD, model->head().weight_VD.t().to(at::kDouble)), 1);
    for (int64_t t = first; t < size; ++t, ++learned) nats -= log_p_TV[t - 1][tokens_T[t]].item<double>();
  }
  const auto comm = comm::make_self_comm();
  for (const int64_t sequence : {16, 50}) {
    for (const int64_t rows : {1, 3, 100}) {
      const TextScore score = score_text(*model, text, sequence, *comm, 0, rows);
      EXPECT_EQ(score.tokens, learned);
      EXPECT_NEAR(score.nats, nats, 1e-6 * nats) << sequence << " " << rows;
      EXPECT_EQ(score.bytes, 0u);
      EXPECT_TRUE(std::isnan(score.bits_per_byte()));
      EXPECT_GT(score.error, 0);
    }
  }
}

TEST(Perplexity, RefusesWhatTheModelCannotRead) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "c", {std::vector<int32_t>(20, 255)});
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 16), small(255, 16);
  EXPECT_THROW(score_text(model, *text, 17, *comm), ConfigError);
  EXPECT_THROW(score_text(model, *text, 0, *comm), ConfigError);
  EXPECT_THROW(score_text(model, *text, 4, *comm, 0, 0), ConfigError);
  EXPECT_THROW(score_text(small, *text, 4, *comm), DataError);
}

}  // namespace retort::eval
