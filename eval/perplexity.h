// How well a model predicts a text. Every token is scored once: windows of `sequence` tokens start at
// multiples of it, a window's first token is predicted from the last token of the window before, alone, and
// the text's very first token is charged log(vocabulary). Of a text with a loss mask only the learned tokens count, in
// rows as training packs them (data/packing.h). docs/evaluation.md has the formulas, those of the errors too.
// Rows' numbers are summed in the text's order, in f64, so the result has the same bits on every rank
// and for every number of ranks. The model is judged on its working weights as they are. Throws ConfigError,
// DataError.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "data/token_shards.h"
#include "models/model.h"

namespace retort::eval {

// Windows of a forward pass wherever texts are scored. It changes the shapes of the model's products and with
// them the last bits of f32, so that figures compare when all have the same.
inline constexpr int64_t kScoringRows = 16;

struct TextScore {
  double nats = 0;
  int64_t tokens = 0;  // that count
  uint64_t bytes = 0;  // of those tokens' text; 0: unknown, of a text with a loss mask
  double error = 0;  // the standard error of nats_per_token(); NaN for fewer than two windows
  double nats_per_token() const;
  double perplexity() const;
  double bits_per_byte() const;  // NaN where the bytes are unknown
};

// Collective. limit > 0: only the first `limit` tokens, and as large a share of the bytes.
TextScore score_text(models::Model& model, const data::TokenShards& text, int64_t sequence, comm::Comm& comm,
                     int64_t limit = 0, int64_t rows = kScoringRows);

}  // namespace retort::eval
