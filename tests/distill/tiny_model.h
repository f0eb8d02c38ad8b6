// A decoder of a few thousand parameters over 32 ids, with its working copies bound.
#pragma once

#include "models/decoder.h"
#include "models/weight_map.h"

namespace retort::distill {

inline std::unique_ptr<models::Decoder> tiny_model(uint64_t seed) {
  auto model = std::make_unique<models::Decoder>(models::DecoderSpec{.vocabulary = 32,
                                                                     .context = 16,
                                                                     .layers = 2,
                                                                     .width = 16,
                                                                     .heads = 2,
                                                                     .kv_heads = 2,
                                                                     .head_dim = 8,
                                                                     .ffn_width = 32});
  models::initialise(model->parameters(), "normal", 0.3, seed);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

}  // namespace retort::distill
