// B windows of a batch, T tokens, D width, V vocabulary, C rows of a chunk, W windows of the text.
#include "eval/divergence.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace retort::eval {
namespace {

constexpr int64_t kChunkLogits = int64_t{1} << 20;  // of one model at a time

at::Tensor log_probabilities(const models::Head& head, const at::Tensor& h_CD) {
  at::Tensor logits_CV = at::matmul(h_CD.to(head.weight_VD.scalar_type()), head.weight_VD.t());
  logits_CV = logits_CV.to(at::kCPU, at::kDouble);  // KL of near equals is a difference of near equals
  if (head.softcap > 0) logits_CV = at::tanh(logits_CV / head.softcap) * head.softcap;
  return at::log_softmax(logits_CV, 1);
}

// Adds one window's sums to the two numbers at `kl` and `agreed`.
void compare_rows(const models::Head& p, const at::Tensor& p_TD, const models::Head& q,
                  const at::Tensor& q_TD, double* kl, double* agreed) {
  const int64_t chunk = std::max<int64_t>(1, kChunkLogits / p.weight_VD.size(0));
  for (int64_t begin = 0; begin < p_TD.size(0); begin += chunk) {
    const int64_t rows = std::min(chunk, p_TD.size(0) - begin);
    const at::Tensor log_p_CV = log_probabilities(p, p_TD.narrow(0, begin, rows));
    const at::Tensor log_q_CV = log_probabilities(q, q_TD.narrow(0, begin, rows));
    const at::Tensor kl_C = (log_p_CV.exp() * (log_p_CV - log_q_CV)).sum(1);
    *kl += kl_C.sum().item<double>();  // one sum over all of it follows the number of threads
    *agreed += log_p_CV.argmax(1).eq(log_q_CV.argmax(1)).sum().item<double>();
  }
}

at::Tensor read_windows(const data::TokenShards& text, int64_t first, int64_t count, int64_t tokens) {
  at::Tensor tokens_BT = at::empty({count, tokens}, at::kLong);
  text.read(first, {tokens_BT.mutable_data_ptr<int64_t>(), static_cast<size_t>(tokens_BT.numel())});
  return tokens_BT;
}

void check_models(const models::Model& reference, const models::Model& candidate,
                  const data::TokenShards& text, int64_t sequence, int64_t rows) {
  const int64_t context = std::min(reference.context(), candidate.context());
  check<ConfigError>(sequence > 0 && sequence <= context,
                     "[divergence] sequence must lie in 1 .. {}, the models' context, got {}", context,
                     sequence);
  check<ConfigError>(rows > 0, "[divergence] rows must be > 0, got {}", rows);
  check<DataError>(reference.vocabulary() == candidate.vocabulary(),
                   "[divergence] both models must have one vocabulary, got {} and {}", reference.vocabulary(),
                   candidate.vocabulary());
  check<DataError>(
      text.vocabulary() <= reference.vocabulary(),
      "[divergence] the text's ids must be < {}, the models' vocabulary, got a vocabulary of {} ({})",
      reference.vocabulary(), text.vocabulary(), text.tokenizer_name());
}

}  // namespace

Divergence divergence(models::Model& reference, models::Model& candidate, const data::TokenShards& text,
                      int64_t sequence, comm::Comm& comm, int64_t rows, int64_t limit) {
  check_models(reference, candidate, text, sequence, rows);
  const at::NoGradGuard no_grad;
  const int64_t tokens = limit > 0 ? std::min(limit, text.size()) : text.size();
  const int64_t whole = tokens / sequence, windows = (tokens + sequence - 1) / sequence;
  at::Tensor sums_2W = at::zeros({2, windows}, at::kDouble);
  double* kl = sums_2W.mutable_data_ptr<double>();
  const models::Head p = reference.head(), q = candidate.head();
  const auto compare = [&](int64_t first, const at::Tensor& tokens_BT) {
    const at::Tensor p_BTD = reference.hidden({.tokens_BT = tokens_BT.to(p.weight_VD.device())});
    const at::Tensor q_BTD = candidate.hidden({.tokens_BT = tokens_BT.to(q.weight_VD.device())});
    for (int64_t row = 0; row < tokens_BT.size(0); ++row)
      compare_rows(p, p_BTD[row], q, q_BTD[row], &kl[first + row], &kl[windows + first + row]);
  };
  const int64_t batches = (whole + rows - 1) / rows;
  for (int64_t batch = comm.rank(); batch < batches; batch += comm.size()) {
    const int64_t first = batch * rows, count = std::min(rows, whole - first);
    compare(first, read_windows(text, first * sequence, count, sequence));
  }
  if (whole < windows && comm.rank() == batches % comm.size())  // the ragged last window, by itself
    compare(whole, read_windows(text, whole * sequence, 1, tokens - whole * sequence));
  comm.all_reduce(sums_2W, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros

  Divergence out;
  for (int64_t w = 0; w < windows; ++w) {
    out.kl += kl[w];
    out.agreement += kl[windows + w];
  }
  out.positions = tokens;
  out.kl /= static_cast<double>(tokens);
  out.agreement /= static_cast<double>(tokens);
  return out;
}

}  // namespace retort::eval
