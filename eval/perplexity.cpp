// B windows of a batch, T tokens, D width, W windows of the text.
#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "kernels/linear_loss.h"

namespace retort::eval {
namespace {

struct Windows {
  at::Tensor tokens_BT, labels_BT;
};

// Windows [first, first + count) of the text's first `tokens` tokens. Row w predicts tokens [w T, w T + T)
// from the token before each; what the first and the last window lack is padding at the end, which nothing
// sees.
Windows read_windows(const data::TokenShards& text, int64_t tokens, int64_t sequence, int64_t first,
                     int64_t count) {
  Windows out{at::zeros({count, sequence}, at::kLong),
              at::full({count, sequence}, kernels::kIgnoredLabel, at::kLong)};
  for (int64_t row = 0; row < count; ++row) {
    const int64_t start = (first + row) * sequence;
    const int64_t begin = std::max<int64_t>(start - 1, 0), end = std::min(start + sequence, tokens) - 1;
    const auto inputs = static_cast<size_t>(end - begin);
    text.read(begin, {out.tokens_BT.mutable_data_ptr<int64_t>() + row * sequence, inputs});
    text.read(begin + 1, {out.labels_BT.mutable_data_ptr<int64_t>() + row * sequence, inputs});
  }
  return out;
}

// One loss a window, so that a window's number does not depend on those scored beside it.
void score_windows(models::Model& model, const Windows& windows, double* nats) {
  const models::Head head = model.head();
  const auto device = head.weight_VD.device();
  const at::Tensor h_BTD = model.hidden({.tokens_BT = windows.tokens_BT.to(device)});
  const at::Tensor labels_BT = windows.labels_BT.to(device);
  for (int64_t row = 0; row < h_BTD.size(0); ++row)
    nats[row] =
        kernels::linear_cross_entropy(h_BTD[row], head.weight_VD, labels_BT[row], {.softcap = head.softcap})
            .item<double>();
}

}  // namespace

double TextScore::perplexity() const { return std::exp(nats / static_cast<double>(tokens)); }

double TextScore::bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }

TextScore score_text(models::Model& model, const data::TokenShards& text, int64_t sequence, comm::Comm& comm,
                     int64_t rows, int64_t limit) {
  check<ConfigError>(sequence > 0 && sequence <= model.context(),
                     "[perplexity] sequence must lie in 1 .. {}, the model's context, got {}",
                     model.context(), sequence);
  check<ConfigError>(rows > 0, "[perplexity] rows must be > 0, got {}", rows);
  check<DataError>(
      text.vocabulary() <= model.vocabulary(),
      "[perplexity] the text's ids must be < {}, the model's vocabulary, got a vocabulary of {} ({})",
      model.vocabulary(), text.vocabulary(), text.tokenizer_name());
  const at::NoGradGuard no_grad;
  const int64_t tokens = limit > 0 ? std::min(limit, text.size()) : text.size();
  const int64_t windows = (tokens + sequence - 1) / sequence;
  at::Tensor nats_W = at::zeros({windows}, at::kDouble);
  // Batches are cut the same way for every rank count: shapes decide how products round.
  for (int64_t first = comm.rank() * rows; first < windows; first += comm.size() * rows) {
    const Windows batch = read_windows(text, tokens, sequence, first, std::min(rows, windows - first));
    score_windows(model, batch, nats_W.mutable_data_ptr<double>() + first);
  }
  comm.all_reduce(nats_W, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros

  TextScore score;
  score.nats = std::log(static_cast<double>(text.vocabulary()));
  for (int64_t w = 0; w < windows; ++w) score.nats += nats_W.const_data_ptr<double>()[w];
  score.tokens = tokens;
  const double share = static_cast<double>(tokens) / static_cast<double>(text.size());
  score.bytes = static_cast<uint64_t>(std::llround(static_cast<double>(text.text_bytes()) * share));
  return score;
}

}  // namespace retort::eval
