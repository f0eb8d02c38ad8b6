// B windows of a batch, T tokens, D width, V vocabulary, C rows of a chunk, W windows of the text.
#include "eval/divergence.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::eval {
namespace {

constexpr int64_t kChunkLogits = int64_t{1} << 20;  // of one model at a time

// f64: the KL of near equals is a difference of near equals.
at::Tensor log_probabilities(const models::Head& head, const at::Tensor& h_CD) {
  return at::log_softmax(head.logits(h_CD, at::kDouble).cpu(), 1);
}

// Of one window.
struct Sums {
  double kl = 0, agreed = 0;
};

Sums compare_rows(const models::Head& p, const at::Tensor& p_TD, const models::Head& q,
                  const at::Tensor& q_TD) {
  Sums out;
  const int64_t chunk = std::max<int64_t>(1, kChunkLogits / p.weight_VD.size(0));
  for (int64_t begin = 0; begin < p_TD.size(0); begin += chunk) {
    const int64_t rows = std::min(chunk, p_TD.size(0) - begin);
    const at::Tensor log_p_CV = log_probabilities(p, p_TD.narrow(0, begin, rows));
    const at::Tensor log_q_CV = log_probabilities(q, q_TD.narrow(0, begin, rows));
    const at::Tensor kl_C = (log_p_CV.exp() * (log_p_CV - log_q_CV)).sum(1);
    out.kl += kl_C.sum().item<double>();  // one sum over all of it follows the number of threads
    out.agreed += log_p_CV.argmax(1).eq(log_q_CV.argmax(1)).sum().item<double>();
  }
  return out;
}

at::Tensor read_windows(const data::TokenShards& text, int64_t first, int64_t count, int64_t tokens) {
  std::vector<int64_t> ids(static_cast<size_t>(count * tokens));
  text.read(first, ids);
  return at::tensor(ids).view({count, tokens});
}

void check_models(const models::Model& reference, const models::Model& candidate,
                  const data::TokenShards& text, int64_t sequence, int64_t rows) {
  const int64_t context = std::min(reference.context(), candidate.context());
  check<ConfigError>(sequence > 0 && sequence <= context,
                     "[divergence] sequence must lie in 1 .. {}, the models' context, got {}", context,
                     sequence);
  check<ConfigError>(rows > 0, "[divergence] rows must be > 0, got {}", rows);
  check<DataError>(reference.tokens() == candidate.tokens(),
                   "[divergence] both models must have one vocabulary, got {} and {}", reference.tokens(),
                   candidate.tokens());
  text.check_rows(reference.tokens(), "[divergence]");
}

}  // namespace

Divergence divergence(models::Model& reference, models::Model& candidate, const data::TokenShards& text,
                      int64_t sequence, comm::Comm& comm, int64_t limit, int64_t rows) {
  check_models(reference, candidate, text, sequence, rows);
  const at::NoGradGuard no_grad;
  const int64_t tokens = limit > 0 ? std::min(limit, text.size()) : text.size();
  const int64_t whole = tokens / sequence, windows = (tokens + sequence - 1) / sequence;
  const at::Tensor sums_2W = at::zeros({2, windows}, at::kDouble);
  const std::span<double> kl = host_values<double>(sums_2W[0]), agreed = host_values<double>(sums_2W[1]);
  const models::Head p = reference.head(), q = candidate.head();
  const auto compare = [&](int64_t first, const at::Tensor& tokens_BT) {
    const at::Tensor p_BTD = reference.hidden({.tokens_BT = tokens_BT.to(p.weight_VD.device())});
    const at::Tensor q_BTD = candidate.hidden({.tokens_BT = tokens_BT.to(q.weight_VD.device())});
    for (int64_t row = 0; row < tokens_BT.size(0); ++row) {
      const Sums window = compare_rows(p, p_BTD[row], q, q_BTD[row]);
      kl[static_cast<size_t>(first + row)] = window.kl;
      agreed[static_cast<size_t>(first + row)] = window.agreed;
    }
  };
  const int64_t batches = (whole + rows - 1) / rows;
  for (int64_t batch = comm.rank(); batch < batches; batch += comm.size()) {
    const int64_t first = batch * rows, count = std::min(rows, whole - first);
    compare(first, read_windows(text, first * sequence, count, sequence));
  }
  if (whole < windows && comm.rank() == batches % comm.size())  // the ragged last window, by itself
    compare(whole, read_windows(text, whole * sequence, 1, tokens - whole * sequence));
  comm.all_reduce(sums_2W, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros

  std::vector<double> positions(static_cast<size_t>(windows), static_cast<double>(sequence));
  if (whole < windows) positions.back() = static_cast<double>(tokens - whole * sequence);
  return {ratio(kl, positions), ratio(agreed, positions)};
}

}  // namespace retort::eval
