#include "eval/log_likelihood.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <span>

#include "core/error.h"
#include "tests/eval/golden.h"
#include "tests/eval/models.h"

namespace retort::eval {
namespace {

using retort::testing::golden_lines;
using retort::testing::golden_requests;
using retort::testing::LookupModel;
using retort::testing::make_decoder;
using retort::testing::Stories;

constexpr const char* kTasks[] = {"arc_easy_local",
                                  "arc_easy_local_2shot",
                                  "piqa_local",
                                  "hellaswag_local",
                                  "lambada_openai_local",
                                  "winogrande_local",
                                  "winogrande_local_2shot",
                                  "blimp_anaphor_number_agreement_local",
                                  "blimp_passive_1_local",
                                  "mmlu_format_local",
                                  "boolq_format_local",
                                  "source_local",
                                  "source_local_3shot"};

// Requests of every kind of pass: long contexts of several lengths with several continuations, one of them twice, and one
// pair that fills the window of 64; equal inputs with different last tokens; single ones of several lengths.
std::vector<TokenRequest> mixed_requests() {
  const auto tokens = [](int from, int count) {
    std::vector<int32_t> out;
    for (int i = 0; i < count; ++i) out.push_back((from + 7 * i) % 256);
    return out;
  };
  const std::vector<int32_t> shared = tokens(3, 40);
  std::vector<TokenRequest> out = {{shared, tokens(9, 5)}, {shared, tokens(20, 9)}, {shared, tokens(9, 5)},
                                   {shared, {1}},          {shared, {2}},           {{5}, {6}}};
  for (int i = 1; i < 20; ++i) out.push_back({tokens(i, 2 + i % 7), tokens(i * 3, 1 + i % 5)});
  for (int i = 0; i < 12; ++i)
    for (int k = 0; k < 3; ++k)
      out.push_back({tokens(50 + i, 17 + 3 * i), tokens(i + 11 * k, 1 + (i + 5 * k) % 9)});
  for (int k = 0; k < 2; ++k) out.push_back({tokens(77, 59), tokens(k, 6)});
  return out;
}

// Whether a product gives a row the same bits beside any others, for the model's matrices.
bool products_of_any_rows_are_alike(models::Model& model) {
  const at::NoGradGuard no_grad;
  for (const models::Parameter& p : model.parameters().unique()) {
    if (p.working.dim() != 2) continue;
    at::Tensor x = at::empty({600, p.working.size(1)});
    Random(3, "test/rows").fill_normal(x, 1.0);
    const at::Tensor sixteen = at::linear(x.narrow(0, 0, 16), p.working);
    for (const int64_t rows : {17, 18, 20, 24, 28, 32, 36, 44, 48, 64, 100, 128, 200, 256, 400, 600})
      if (!at::equal(at::linear(x.narrow(0, 0, rows), p.working).narrow(0, 0, 16), sixteen)) return false;
  }
  return true;
}

}  // namespace

class GoldenTask : public ::testing::TestWithParam<const char*> {};

// Tokens, log-likelihoods and greedy flags of every request.
TEST_P(GoldenTask, IsAnsweredAsTheHarnessAnswersIt) {
  RETORT_NEEDS_TEST_DATA();
  const Stories stories;
  const RequestEncoder encoder(*stories.tokenizer, stories.model->context());
  const auto comm = comm::make_self_comm();
  std::vector<TokenRequest> requests;
  std::vector<std::pair<double, bool>> expected;
  size_t documents = 0;
  for (const formats::Json& line : golden_lines(GetParam())) {
    const std::vector<Request> asked = golden_requests(line);
    documents += !asked.empty();
    for (size_t k = 0; k < asked.size(); ++k) {
      requests.push_back(encoder.encode(asked[k], GetParam()));
      expected.emplace_back(line.at("lls")[k].get<double>(), line.at("greedy")[k].get<int>() != 0);
      if (line.contains("ids")) {  // before what is too long loses its beginning
        const auto context = line.at("ids")[k][0].get<std::vector<int32_t>>();
        const auto& kept = requests.back().context;
        EXPECT_TRUE(std::ranges::equal(kept, std::span(context).last(std::min(kept.size(), context.size()))));
        EXPECT_EQ(requests.back().continuation, line.at("ids")[k][1].get<std::vector<int32_t>>());
        const auto tokens = std::ssize(kept) + std::ssize(requests.back().continuation);
        EXPECT_TRUE(kept.size() == context.size() || tokens == stories.model->context() + 1);
      }
      EXPECT_EQ(requests.back().continuation.size(), line.at("tokens")[k][1].get<size_t>());
    }
  }
  EXPECT_GE(documents, 40u);
  const std::vector<LogLikelihood> answers = log_likelihoods(*stories.model, requests, *comm);
  for (size_t i = 0; i < answers.size(); ++i) {
    ASSERT_NEAR(answers[i].nats, expected[i].first, 1e-3) << i;
    ASSERT_EQ(answers[i].greedy, expected[i].second) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(All, GoldenTask, ::testing::ValuesIn(kTasks));

TEST(LogLikelihood, RollingTextsAreTheSumOfDisjointWindows) {
  RETORT_NEEDS_TEST_DATA();
  const Stories stories;
  const RequestEncoder encoder(*stories.tokenizer, stories.model->context());
  const auto comm = comm::make_self_comm();
  for (const char* task : {"stories_local", "wikitext_local"})
    for (const formats::Json& line : golden_lines(task)) {
      if (!line.contains("text")) continue;
      const std::vector<TokenRequest> windows =
          encoder.encode_rolling(line.at("text").get<std::string>(), task);
      ASSERT_EQ(windows.size(), line.at("windows").size());
      const std::vector<LogLikelihood> answers = log_likelihoods(*stories.model, windows, *comm);
      double sum = 0;
      for (size_t w = 0; w < windows.size(); ++w) {
        EXPECT_EQ(windows[w].context.size(), line.at("windows")[w][0].get<size_t>());
        EXPECT_EQ(windows[w].continuation.size(), line.at("windows")[w][1].get<size_t>());
        EXPECT_NEAR(answers[w].nats, line.at("windows")[w][2].get<double>(), 2e-3);
        sum += answers[w].nats;
      }
      EXPECT_NEAR(sum, line.at("ll").get<double>(), 1e-6 * std::abs(sum) + 1e-3);
    }
}

// Without the arithmetic of a body there is nothing that a batch could change but a mistake.
TEST(LogLikelihood, AreThoseOfEachRequestAlone) {
  const auto comm = comm::make_self_comm();
  const std::vector<TokenRequest> requests = mixed_requests();
  LookupModel model(256, 64);
  std::vector<LogLikelihood> alone;
  for (const TokenRequest& request : requests)
    alone.push_back(log_likelihoods(model, {request}, *comm).front());
  for (const int64_t rows : {1, 2, 5, 100})
    EXPECT_EQ(log_likelihoods(model, requests, *comm, rows), alone) << rows;
  // The definition, from the logits.
  const models::Head head = model.head();
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<int64_t> input(requests[i].context.begin(), requests[i].context.end());
    double nats = 0;
    bool greedy = true;
    for (const int32_t id : requests[i].continuation) {
      const at::Tensor logits_V =
          head.logits(model.hidden({.tokens_BT = at::tensor(input).view({1, -1})}, nullptr).select(1, -1))[0]
              .to(at::kDouble);
      nats += (logits_V[id] - at::logsumexp(logits_V, 0)).item<double>();
      greedy = greedy && at::argmax(logits_V).item<int64_t>() == id;
      input.push_back(id);
    }
    EXPECT_NEAR(alone[i].nats, nats, 1e-5 * std::abs(nats));
    EXPECT_EQ(alone[i].greedy, greedy);
  }
}

// The bits in a batch are those of each request alone as far as the library's products give a row the same bits beside
// any others, which MKL was measured to do from four rows on (docs/evaluation.md); it promises nothing of the kind.
TEST(LogLikelihood, HaveTheSameBitsOnAnyRanksAndInAnyBatch) {
  const testing::Threads one_thread(1);
  const std::vector<TokenRequest> requests = mixed_requests();
  const auto model = make_decoder(256, 64);
  const std::vector<LogLikelihood> alone = log_likelihoods(*model, requests, *comm::make_self_comm());
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      const auto mine = log_likelihoods(*make_decoder(256, 64), requests, comm);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(mine, alone) << ranks;
    });
  }
  const bool alike = products_of_any_rows_are_alike(*model);
  const auto expect_alike = [&](const LogLikelihood& one, const LogLikelihood& other) {
    EXPECT_NEAR(one.nats, other.nats, alike ? 0.0 : 1e-5);
    EXPECT_EQ(one.greedy, other.greedy);
  };
  for (const int64_t rows : {1, 3, 64}) {
    const auto other = log_likelihoods(*model, requests, *comm::make_self_comm(), rows);
    for (size_t i = 0; i < requests.size(); ++i) expect_alike(other[i], alone[i]);
  }
  // A document by itself: all that is asked about one context.
  std::map<std::vector<int32_t>, std::vector<size_t>> documents;
  for (size_t i = 0; i < requests.size(); ++i) documents[requests[i].context].push_back(i);
  for (const auto& [context, members] : documents) {
    std::vector<TokenRequest> own;
    for (const size_t i : members) own.push_back(requests[i]);
    const auto answers = log_likelihoods(*model, own, *comm::make_self_comm());
    for (size_t k = 0; k < members.size(); ++k) expect_alike(answers[k], alone[members[k]]);
  }
}

TEST(LogLikelihood, RefuseIdsThatTheModelHasNot) {
  LookupModel model(8, 16);
  EXPECT_THROW(log_likelihoods(model, {{{1}, {8}}}, *comm::make_self_comm()), DataError);
}

TEST(LogLikelihood, TheFirstOfEqualLogitsIsTheLikeliest) {
  LookupModel model(8, 16);
  model.head().weight_VD.zero_();
  const auto answers = log_likelihoods(model, {{{1}, {0}}, {{1}, {3}}}, *comm::make_self_comm());
  EXPECT_TRUE(answers[0].greedy);
  EXPECT_FALSE(answers[1].greedy);
  EXPECT_NEAR(answers[1].nats, -std::log(8.0), 1e-6);
}

}  // namespace retort::eval
