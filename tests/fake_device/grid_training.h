// Training on a grid, of a model whose rows every grid fits.
#pragma once

#include <string>

#include "quantize/quantize_map.h"
#include "tests/fake_device/training.h"

namespace retort::testing {

inline Training on_grid(const std::string& grid) {
  Training training;
  training.model = [] {
    models::DecoderSpec spec = small_llama();
    spec.layers = 1, spec.vocabulary = 32, spec.width = 256, spec.ffn_width = 256;
    spec.heads = 1, spec.kv_heads = 1, spec.head_dim = 256;
    auto model = std::make_unique<models::Decoder>(spec);
    models::initialise(model->parameters(), "gpt2", 0.05, 5);
    return model;
  };
  training.map = [=](models::Parameters& parameters) {
    return std::make_unique<quantize::QuantizeMap>(
        quantize::QuantizeOptions{.weights = {grid}, .embedding = {"q8_0"}, .head = {"q8_0"}}, parameters);
  };
  return training;
}

}  // namespace retort::testing
