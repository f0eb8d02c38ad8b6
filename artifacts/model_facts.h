// What a checkpoint remembers of its model beside the weights, in its manifest's `extra`:
//
//   {"model": a DecoderSpec (models/spec_json.h), "tokenizer": its name, "generation":
//    models/generation_facts.h, "quantize": the grids that it was trained on, QuantizeOptions as JSON,
//    "adapters": {"options": AdapterOptions as JSON, "base": where the frozen model is, from the checkpoint's
//    own directory or the root, "digest": its weights_digest()}, "origin": origin.h, where something is known}
//
// With adapters the checkpoint holds those alone, and "model" is the shape of base and adapters together.
// A tokenizer without a name of its own is in the checkpoint as files. Older manifests hold "quantize" as the
// text of a recipe's section (printed_options.h). DataError naming source and key. Any thread.
#pragma once

#include <optional>
#include <string>

#include "artifacts/origin.h"
#include "formats/json.h"
#include "models/adapters.h"
#include "quantize/quantize_map.h"

namespace retort::artifacts {

struct AdapterFacts {
  models::AdapterOptions options;
  std::string base;
  std::string digest;  // "" where nothing is known of the base's
};

struct ModelFacts {
  models::DecoderSpec spec;
  std::optional<std::string> tokenizer = {};
  std::optional<quantize::QuantizeOptions> quantize = {};
  formats::Json generation = formats::Json::object();
  std::optional<AdapterFacts> adapters = {};
  Origin origin = {};
};

formats::Json model_facts(const ModelFacts& facts);
// `source`: the manifest, for messages. The spec is not validated.
ModelFacts read_model_facts(const formats::Json& extra, const std::string& source);

}  // namespace retort::artifacts
