// Training adapters over a base that every form of a frozen one fits.
#pragma once

#include <string>
#include <utility>

#include "models/adapters.h"
#include "tests/fake_device/training.h"

namespace retort::testing {

// Rows of 64.
inline models::DecoderSpec even_llama() {
  models::DecoderSpec spec = small_llama();
  spec.width = 64, spec.head_dim = 16, spec.ffn_width = 64;
  return spec;
}

inline std::unique_ptr<models::Model> even_model() {
  auto model = std::make_unique<models::Decoder>(even_llama());
  models::initialise(model->parameters(), "gpt2", 0.1, 5);
  return model;
}

inline std::unique_ptr<models::Model> adapted(const std::string& base, bool dora = false) {
  models::AdapterOptions options;
  options.rank = 4, options.dora = dora, options.base = base;
  return models::adapt(even_model(), options, 7);
}

inline Training adapters(const std::string& base, bool dora, at::ScalarType dtype = at::kFloat) {
  return {.model = [=] { return adapted(base, dora); }, .dtype = dtype};
}

}  // namespace retort::testing
