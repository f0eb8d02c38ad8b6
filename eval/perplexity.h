// How well a model predicts a text, exactly: every token is scored once. Windows of `sequence` tokens start
// at multiples of it (no sliding); a window's first token is predicted from the last token of the window
// before, alone (state the window when comparing). The text's very first token is predicted from nothing and
// is charged log(vocabulary), so the figure covers the whole text.
//   bits per byte = nats / ln 2 / bytes
// Batches of `rows` windows are dealt to the ranks; each window's nats are one number, and these are summed
// in f64 in the text's order. So the result is the same, bit for bit, on every rank and for every rank count.
// `rows` changes the shapes of the model's matrix products and with them the last bits of f32.
// The model is judged on its working weights as they are. Throws ConfigError, DataError.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "data/token_shards.h"
#include "models/model.h"

namespace retort::eval {

struct TextScore {
  double nats = 0;
  int64_t tokens = 0;
  uint64_t bytes = 0;
  double perplexity() const;
  double bits_per_byte() const;
};

// Collective. limit > 0: only the first `limit` tokens (bytes are then scaled by share, and the caller says
// so).
TextScore score_text(models::Model& model, const data::TokenShards& text, int64_t sequence, comm::Comm& comm,
                     int64_t rows = 16, int64_t limit = 0);

}  // namespace retort::eval
