// A decoder of a few thousand parameters with its working copies bound, and batches for it.
#pragma once

#include <memory>
#include <vector>

#include "core/random.h"
#include "data/batch_stream.h"
#include "models/decoder.h"
#include "models/weight_map.h"

namespace retort::train {

inline models::DecoderSpec tiny_spec() {
  return {.vocabulary = 256,
          .context = 64,
          .layers = 2,
          .width = 16,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 8,
          .ffn_width = 24,
          .share_ffn = true};
}

struct TinyModel {
  models::Decoder model{tiny_spec()};
  models::IdentityMap map;
  explicit TinyModel(uint64_t seed = 5) {
    models::initialise(model.parameters(), "gpt2", 0.1, seed);
    models::bind_working(model.parameters(), map, at::kFloat);
  }
  std::vector<at::Tensor> weights() const {
    std::vector<at::Tensor> out;
    for (const models::Parameter& p : model.parameters().unique()) out.push_back(p.master.clone());
    return out;
  }
};

// Batch `number` of an endless stream of random tokens. The later rows have fewer valid labels.
inline data::Batch tiny_batch(int64_t number, int64_t rows = 2, int64_t tokens = 12) {
  const Random random(11, "tokens", 0, static_cast<uint64_t>(number));
  const at::Tensor ids = at::empty({rows, tokens + 1}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.view({-1})[i] = static_cast<int64_t>(random.below(static_cast<uint64_t>(i), 31));
  data::Batch batch{ids.narrow(1, 0, tokens).contiguous(), ids.narrow(1, 1, tokens).contiguous(), {}, {}, {}};
  batch.labels_BT.narrow(1, 0, number % 5 * 2).fill_(data::kIgnored);
  return batch;
}

}  // namespace retort::train
