// B windows of a batch, T tokens, D width, V vocabulary, C rows of a chunk, W windows of the text, K drafted tokens.
#include "eval/drafting.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::eval {
namespace {

constexpr int64_t kChunkLogits = int64_t{1} << 20;  // of one model at a time

at::Tensor log_probabilities(const models::Head& head, const at::Tensor& h_CD, double temperature) {
  return at::log_softmax(head.logits(h_CD, at::kDouble).cpu() / temperature, 1);
}

// Of the positions of a window.
struct Chances {
  std::vector<double> acceptance, agreement;
};

Chances compare(const models::Head& p, const at::Tensor& p_TD, const models::Head& q, const at::Tensor& q_TD,
                double temperature) {
  Chances out;
  const int64_t tokens = p_TD.size(0), chunk = std::max<int64_t>(1, kChunkLogits / p.weight_VD.size(0));
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t rows = std::min(chunk, tokens - begin);
    const at::Tensor log_p_CV = log_probabilities(p, p_TD.narrow(0, begin, rows), temperature);
    const at::Tensor log_q_CV = log_probabilities(q, q_TD.narrow(0, begin, rows), temperature);
    const at::Tensor acceptance_C = at::minimum(log_p_CV, log_q_CV).exp().sum(1).clamp_max(1);
    const at::Tensor agreement_C = log_p_CV.argmax(1).eq(log_q_CV.argmax(1)).to(at::kDouble);
    for (const auto& [chances_C, into] :
         {std::pair(acceptance_C, &out.acceptance), std::pair(agreement_C, &out.agreement)}) {
      const auto chances = host_values<const double>(chances_C);
      into->insert(into->end(), chances.begin(), chances.end());
    }
  }
  return out;
}

// A window's sums, in the order of the rows of sums_SW.
enum Sum : int64_t {
  kPositions,
  kAcceptance,
  kAgreement,
  kTokens,
  kRounds,
  kGreedyTokens,
  kGreedyRounds,
  kSums
};

at::Tensor sums_of(const Chances& window, int64_t drafted) {
  const Rounds drawn = expected_rounds(window.acceptance, drafted),
               greedy = expected_rounds(window.agreement, drafted);
  double acceptance = 0, agreement = 0;
  for (const double chance : window.acceptance) acceptance += chance;
  for (const double chance : window.agreement) agreement += chance;
  return at::tensor({static_cast<double>(window.acceptance.size()), acceptance, agreement, drawn.tokens,
                     drawn.rounds, greedy.tokens, greedy.rounds},
                    at::kDouble);
}

void check_models(const models::Model& target, const models::Model& drafter, const data::TokenShards& text,
                  int64_t sequence, const DraftingOptions& options, int64_t rows) {
  const int64_t context = std::min(target.context(), drafter.context());
  check<ConfigError>(sequence > 0 && sequence <= context,
                     "[drafting] sequence must lie in 1 .. {}, the models' context, got {}", context,
                     sequence);
  check<ConfigError>(options.drafted > 0 && options.drafted <= sequence,
                     "[drafting] drafted must lie in 1 .. {}, the window, got {}", sequence, options.drafted);
  check<ConfigError>(options.temperature > 0, "[drafting] temperature must be > 0, got {}",
                     options.temperature);
  check<ConfigError>(rows > 0, "[drafting] rows must be > 0, got {}", rows);
  check<DataError>(
      target.tokens() == drafter.tokens(),
      "[drafting] both models must have one vocabulary: the target has {} tokens, the drafter {}",
      target.tokens(), drafter.tokens());
  text.check_rows(target.tokens(), "[drafting]");
}

}  // namespace

Drafting drafting(models::Model& target, models::Model& drafter, const data::TokenShards& text,
                  int64_t sequence, const DraftingOptions& options, comm::Comm& comm, int64_t limit,
                  int64_t rows) {
  check_models(target, drafter, text, sequence, options, rows);
  const at::NoGradGuard no_grad;
  const int64_t tokens = limit > 0 ? std::min(limit, text.size()) : text.size();
  const int64_t whole = tokens / sequence, windows = (tokens + sequence - 1) / sequence;
  check<ConfigError>(tokens >= options.drafted, "[drafting] a text of {} tokens holds no round of {}", tokens,
                     options.drafted);
  const at::Tensor sums_SW = at::zeros({kSums, windows}, at::kDouble);
  const models::Head p = target.head(), q = drafter.head();
  const auto measure = [&](int64_t first, int64_t count, int64_t length) {
    std::vector<int64_t> ids(static_cast<size_t>(count * length));
    text.read(first * sequence, ids);
    const at::Tensor tokens_BT = at::tensor(ids).view({count, length});
    const at::Tensor p_BTD = target.hidden({.tokens_BT = tokens_BT.to(p.weight_VD.device())});
    const at::Tensor q_BTD = drafter.hidden({.tokens_BT = tokens_BT.to(q.weight_VD.device())});
    for (int64_t row = 0; row < count; ++row)
      sums_SW.select(1, first + row)
          .copy_(sums_of(compare(p, p_BTD[row], q, q_BTD[row], options.temperature), options.drafted));
  };
  const int64_t batches = (whole + rows - 1) / rows;
  for (int64_t batch = comm.rank(); batch < batches; batch += comm.size())
    measure(batch * rows, std::min(rows, whole - batch * rows), sequence);
  if (whole < windows && comm.rank() == batches % comm.size())  // the ragged last window, by itself
    measure(whole, 1, tokens - whole * sequence);
  comm.all_reduce(sums_SW, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros

  const auto sums = host_values<const double>(sums_SW);
  const auto of = [&](Sum s) {
    return sums.subspan(static_cast<size_t>(s * windows), static_cast<size_t>(windows));
  };
  return {.acceptance = ratio(of(kAcceptance), of(kPositions)),
          .agreement = ratio(of(kAgreement), of(kPositions)),
          .tokens_per_round = ratio(of(kTokens), of(kRounds)),
          .greedy_tokens_per_round = ratio(of(kGreedyTokens), of(kGreedyRounds))};
}

Rounds expected_rounds(std::span<const double> acceptance, int64_t drafted) {
  const auto positions = static_cast<int64_t>(acceptance.size()), ends = positions - drafted + 1;
  std::vector<double> begins(static_cast<size_t>(positions + 2),
                             0.0);  // the chance that a round begins there
  begins[0] = 1;
  Rounds out;
  for (int64_t start = 0; start < ends; ++start) {
    double reached = begins[static_cast<size_t>(start)];
    out.rounds += reached;
    for (int64_t k = 0; k < drafted; ++k) {
      const auto at = static_cast<size_t>(start + k);
      begins[at + 1] += reached * (1 - acceptance[at]);
      reached *= acceptance[at];
    }
    begins[static_cast<size_t>(start + drafted + 1)] += reached;
  }
  for (int64_t end = std::max<int64_t>(ends, 0); end < positions + 2; ++end)
    out.tokens += begins[static_cast<size_t>(end)] * static_cast<double>(end);
  return out;
}

Estimate geometric_tokens(const Estimate& acceptance, int64_t drafted) {
  double tokens = 1, slope = 0, power = 1;  // 1 + a + .. + a^K, and its derivative
  for (int64_t k = 1; k <= drafted; ++k) {
    slope += static_cast<double>(k) * power;
    power *= acceptance.value;
    tokens += power;
  }
  return {tokens, slope * acceptance.standard_error};
}

}  // namespace retort::eval
