// B windows of a batch, T tokens, W windows of the text.
#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "core/host_tensor.h"
#include "kernels/linear_loss.h"
#include "models/row_log_probability.h"

namespace retort::eval {
namespace {

struct Windows {
  at::Tensor tokens_BT, labels_BT;
};

// Windows [first, first + count) of the text's first `tokens` tokens. Row w predicts tokens [w T, w T + T)
// from the token before each. The first and the last window are padded at the end, which no prediction sees.
Windows read_windows(const data::TokenShards& text, int64_t tokens, int64_t sequence, int64_t first,
                     int64_t count) {
  const auto size = static_cast<size_t>(count * sequence);
  std::vector<int64_t> inputs(size), labels(size, kernels::kIgnoredLabel);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t start = (first + row) * sequence;
    const int64_t begin = std::max<int64_t>(start - 1, 0), end = std::min(start + sequence, tokens) - 1;
    const auto length = static_cast<size_t>(end - begin);
    text.read(begin, {inputs.data() + row * sequence, length});
    text.read(begin + 1, {labels.data() + row * sequence, length});
  }
  return {at::tensor(inputs).view({count, sequence}), at::tensor(labels).view({count, sequence})};
}

// How many tokens window w scores.
int64_t window_tokens(int64_t tokens, int64_t sequence, int64_t w) {
  return std::min(sequence, tokens - w * sequence);
}

// Of a ratio of sums over windows, sum of x / sum of n, by its linear part (Cochran 1977, Sampling
// Techniques, the estimate of a ratio): sqrt(W / (W - 1) sum (x - ratio n)^2) / sum of n.
double ratio_error(const std::vector<double>& nats, int64_t tokens, int64_t sequence, double ratio) {
  const auto windows = static_cast<double>(nats.size());
  if (nats.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  double squares = 0;
  for (size_t w = 0; w < nats.size(); ++w) {
    const auto n = static_cast<double>(window_tokens(tokens, sequence, static_cast<int64_t>(w)));
    squares += (nats[w] - ratio * n) * (nats[w] - ratio * n);
  }
  return std::sqrt(windows / (windows - 1) * squares) / static_cast<double>(tokens);
}

}  // namespace

double TextScore::nats_per_token() const { return nats / static_cast<double>(tokens); }

double TextScore::perplexity() const { return std::exp(nats_per_token()); }

double TextScore::bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }

TextScore score_text(models::Model& model, const data::TokenShards& text, int64_t sequence, comm::Comm& comm,
                     int64_t limit, int64_t rows) {
  check<ConfigError>(sequence > 0 && sequence <= model.context(),
                     "[perplexity] sequence must lie in 1 .. {}, the model's context, got {}",
                     model.context(), sequence);
  check<ConfigError>(rows > 0, "[perplexity] rows must be > 0, got {}", rows);
  text.check_rows(model.tokens(), "[perplexity]");
  const at::NoGradGuard no_grad;
  const auto device = model.head().weight_VD.device();
  const int64_t tokens = limit > 0 ? std::min(limit, text.size()) : text.size();
  const int64_t windows = (tokens + sequence - 1) / sequence;
  const at::Tensor nats_W = at::zeros({windows}, at::kDouble);
  // The batches are the same for every number of ranks: shapes decide how products round.
  for (int64_t first = comm.rank() * rows; first < windows; first += comm.size() * rows) {
    const int64_t count = std::min(rows, windows - first);
    const auto [tokens_BT, labels_BT] = read_windows(text, tokens, sequence, first, count);
    const at::Tensor sum_B =
        models::row_log_probability(model, {.tokens_BT = tokens_BT.to(device)}, labels_BT.to(device)).sum_B;
    nats_W.narrow(0, first, count).copy_(sum_B.neg());
  }
  comm.all_reduce(nats_W, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros

  const double unknown = std::log(static_cast<double>(text.vocabulary()));  // the first token
  const std::span<const double> of_windows = host_values<const double>(nats_W);
  std::vector<double> nats(of_windows.begin(), of_windows.end());
  TextScore score{.nats = unknown, .tokens = tokens};
  for (const double of_window : nats) score.nats += of_window;
  const double share = static_cast<double>(tokens) / static_cast<double>(text.size());
  score.bytes = static_cast<uint64_t>(std::llround(static_cast<double>(text.text_bytes()) * share));
  nats.front() += unknown;
  score.error = ratio_error(nats, tokens, sequence, score.nats_per_token());
  return score;
}

}  // namespace retort::eval
