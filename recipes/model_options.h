// The `model` section of a recipe: a MODEL to start from, or the shape of a new one and how its weights begin.
// Values; any thread.
#pragma once

#include <optional>
#include <string>

#include "distill/student.h"
#include "models/adapters.h"
#include "models/decoder_spec.h"
#include "quantize/quantize_map.h"

namespace retort::recipes {

struct ModelOptions {
  std::string from;                          // a MODEL; empty: a new one of this shape
  models::DecoderSpec choices;               // as written: 0 where a size follows from others
  std::optional<distill::InitOptions> init;  // weights of a new one; absent: random
  ModelOptions();
  models::DecoderSpec spec() const;  // with every size
  void describe(Section& s);
};

using QuantizeSection = std::optional<quantize::QuantizeOptions>;  // absent: weights lie on no grid

using AdapterSection = std::optional<models::AdapterOptions>;  // absent: all of the model is trained

}  // namespace retort::recipes
