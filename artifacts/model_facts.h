// What a checkpoint remembers of its model beside the weights, in its manifest's `extra`:
//
//   {"model": a DecoderSpec (models/spec_json.h), "tokenizer": its name, "generation":
//    models/generation_facts.h, "quantize": the grids that it was trained on, QuantizeOptions as JSON}
//
// A tokenizer without a name of its own is in the checkpoint as files. Older manifests hold "quantize" as the
// text of a recipe's section (printed_options.h). DataError naming source and key. Any thread.
#pragma once

#include <optional>
#include <string>

#include "formats/json.h"
#include "models/decoder_spec.h"
#include "quantize/quantize_map.h"

namespace retort::artifacts {

struct ModelFacts {
  models::DecoderSpec spec;
  std::optional<std::string> tokenizer = {};
  std::optional<quantize::QuantizeOptions> quantize = {};
  formats::Json generation = formats::Json::object();
};

formats::Json model_facts(const ModelFacts& facts);
// `source`: the manifest, for messages. The spec is not validated.
ModelFacts read_model_facts(const formats::Json& extra, const std::string& source);

}  // namespace retort::artifacts
