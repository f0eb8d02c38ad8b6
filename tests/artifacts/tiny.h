// A model of a few thousand parameters with a shared feed-forward network and a tied head, and a stage's
// directory that holds it, as training leaves one.
#pragma once

#include "artifacts/model_facts.h"
#include "models/decoder.h"
#include "train/checkpoint.h"

namespace retort::artifacts {

inline std::unique_ptr<models::Decoder> tiny_model(uint64_t seed) {
  models::DecoderSpec spec;
  spec.layers = 2;
  spec.width = 32;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 16;
  spec.ffn_width = 64;
  spec.context = 64;
  spec.share_ffn = true;
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.1, seed);
  return model;
}

inline train::CheckpointContent tiny_content(const models::Model& model, int64_t step,
                                             const std::optional<quantize::QuantizeOptions>& quantize) {
  train::CheckpointContent content;
  content.step = step;
  content.extra = model_facts({model.spec(), "bytes", quantize});
  content.recipe = "# tiny\n";
  for (const models::Parameter& p : model.parameters().unique())
    content.weights.emplace_back(p.name, p.master);
  return content;
}

inline void save_tiny(const models::Model& model, const Path& stage, int64_t step,
                      const std::optional<quantize::QuantizeOptions>& quantize) {
  train::save_checkpoint(local_files(), stage / "checkpoints", tiny_content(model, step, quantize), 1);
}

}  // namespace retort::artifacts
