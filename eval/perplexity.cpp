// B rows of a batch, T tokens, R rows of the text.
#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "core/host_tensor.h"
#include "data/batch_stream.h"
#include "eval/ratio.h"
#include "models/row_log_probability.h"

namespace retort::eval {
namespace {

// Rows that are scored apart, some at a time.
class Rows {
 public:
  virtual ~Rows() = default;
  virtual int64_t size() const = 0;
  virtual data::Batch read(int64_t first, int64_t count) const = 0;
};

// Windows of the text's first `tokens` tokens. Row w predicts tokens [w T, w T + T) from the token before each. The
// first and the last window are padded at the end, which no prediction sees.
class Windows : public Rows {
 public:
  Windows(const data::TokenShards& text, int64_t tokens, int64_t sequence)
      : text_(text), tokens_(tokens), sequence_(sequence) {}
  int64_t size() const override { return (tokens_ + sequence_ - 1) / sequence_; }
  data::Batch read(int64_t first, int64_t count) const override {
    const auto size = static_cast<size_t>(count * sequence_);
    std::vector<int64_t> inputs(size), labels(size, data::kIgnored);
    for (int64_t row = 0; row < count; ++row) {
      const int64_t start = (first + row) * sequence_;
      const int64_t begin = std::max<int64_t>(start - 1, 0), end = std::min(start + sequence_, tokens_) - 1;
      const auto length = static_cast<size_t>(end - begin);
      text_.read(begin, {inputs.data() + row * sequence_, length});
      text_.read(begin + 1, {labels.data() + row * sequence_, length});
    }
    data::Batch out;
    out.tokens_BT = at::tensor(inputs).view({count, sequence_});
    out.labels_BT = at::tensor(labels).view({count, sequence_});
    return out;
  }

 private:
  const data::TokenShards& text_;
  int64_t tokens_, sequence_;
};

// Whole documents, packed, of a text with a loss mask.
class Documents : public Rows {
 public:
  Documents(const data::TokenShards& text, int64_t limit, int64_t sequence)
      : stream_({std::shared_ptr<void>(), &text},
                {.sequence = sequence, .rows = 1, .shuffle = false, .limit = limit, .pack = true}) {}
  int64_t size() const override { return stream_.samples_per_epoch(); }
  data::Batch read(int64_t first, int64_t count) const override {
    std::vector<data::Batch> rows;
    for (int64_t row = 0; row < count; ++row) rows.push_back(stream_.batch(first + row));
    const auto join = [&](at::Tensor data::Batch::*part) {
      std::vector<at::Tensor> parts;
      for (const data::Batch& row : rows) parts.push_back(row.*part);
      return at::cat(parts);
    };
    data::Batch out;
    out.tokens_BT = join(&data::Batch::tokens_BT), out.labels_BT = join(&data::Batch::labels_BT);
    out.positions_BT = join(&data::Batch::positions_BT), out.document_BT = join(&data::Batch::document_BT);
    return out;
  }

 private:
  data::BatchStream stream_;
};

struct RowScore {
  double nats = 0;
  int64_t tokens = 0;
};

// The same bits on every rank: batches are the same for every number of ranks, since shapes decide how products round.
std::vector<RowScore> score_rows(models::Model& model, const Rows& all, int64_t rows, comm::Comm& comm) {
  const auto device = model.head().weight_VD.device();
  const at::Tensor nats_R = at::zeros({all.size()}, at::kDouble);
  const at::Tensor tokens_R = at::zeros({all.size()}, at::kLong);
  for (int64_t first = comm.rank() * rows; first < all.size(); first += comm.size() * rows) {
    const int64_t count = std::min(rows, all.size() - first);
    const data::Batch batch = all.read(first, count);
    const auto there = [&](const at::Tensor& part) { return part.defined() ? part.to(device) : part; };
    const models::RowLogProbability scored = models::row_log_probability(
        model, {there(batch.tokens_BT), there(batch.positions_BT), batch.document_BT},
        there(batch.labels_BT));
    nats_R.narrow(0, first, count).copy_(scored.sum_B.neg());
    tokens_R.narrow(0, first, count).copy_(scored.labels_B);
  }
  comm.all_reduce(nats_R, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros
  comm.all_reduce(tokens_R, comm::Reduce::kSum).wait();
  const auto nats = host_values<const double>(nats_R);
  const auto tokens = host_values<const int64_t>(tokens_R);
  std::vector<RowScore> out;
  for (size_t r = 0; r < nats.size(); ++r) out.push_back({nats[r], tokens[r]});
  return out;
}

TextScore sum_of(const std::vector<RowScore>& rows) {
  TextScore score;
  std::vector<double> nats, tokens;
  for (const RowScore& row : rows) {
    score.nats += row.nats, score.tokens += row.tokens;
    nats.push_back(row.nats), tokens.push_back(static_cast<double>(row.tokens));
  }
  score.error = ratio(nats, tokens).standard_error;
  return score;
}
}  // namespace

double TextScore::nats_per_token() const { return nats / static_cast<double>(tokens); }

double TextScore::perplexity() const { return std::exp(nats_per_token()); }

double TextScore::bits_per_byte() const {
  if (bytes == 0) return std::numeric_limits<double>::quiet_NaN();
  return nats / std::numbers::ln2 / static_cast<double>(bytes);
}

TextScore score_text(models::Model& model, const data::TokenShards& text, int64_t sequence, comm::Comm& comm,
                     int64_t limit, int64_t rows) {
  check<ConfigError>(sequence > 0 && sequence <= model.context(),
                     "[perplexity] sequence must lie in 1 .. {}, the model's context, got {}",
                     model.context(), sequence);
  check<ConfigError>(rows > 0, "[perplexity] rows must be > 0, got {}", rows);
  text.check_rows(model.tokens(), "[perplexity]");
  const at::NoGradGuard no_grad;
  if (text.has_loss_mask()) return sum_of(score_rows(model, Documents(text, limit, sequence), rows, comm));
  const int64_t tokens = limit > 0 ? std::min(limit, text.size()) : text.size();
  std::vector<RowScore> windows = score_rows(model, Windows(text, tokens, sequence), rows, comm);
  // The first token is predicted from nothing.
  windows.front().nats += std::log(static_cast<double>(text.vocabulary()));
  windows.front().tokens += 1;
  TextScore score = sum_of(windows);
  const double share = static_cast<double>(tokens) / static_cast<double>(text.size());
  score.bytes = static_cast<uint64_t>(std::llround(static_cast<double>(text.text_bytes()) * share));
  return score;
}

}  // namespace retort::eval
