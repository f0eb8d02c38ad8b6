// How one published architecture maps to a DecoderSpec, and what its tensors are called in other people's
// files: a translation, one file in models/families/ and one row in its registry. Pure functions; any thread.
// Reading throws DataError naming file and key for what the architecture has and the decoder has not.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/registry.h"
#include "formats/gguf.h"
#include "formats/json.h"
#include "models/decoder.h"
#include "models/foreign.h"

namespace retort::models {

struct Family {
  std::string name;      // "llama": the row, and model.family in recipes
  DecoderSpec defaults;  // the choices that make the architecture; sizes are examples
  std::function<void(const DecoderSpec&)> check;  // ConfigError for a choice that its files cannot say
  // Empty: a Decoder. A family with a model of its own has no files of others, and all below is empty.
  std::function<std::unique_ptr<Model>(DecoderSpec, at::Device)> make;

  std::vector<std::string>
      hf_model_types;                   // config.json model_type values that it reads; the first is written
  std::string hf_prefix;                // of all tensors but the head; files without it are read too
  std::vector<std::string> hf_buffers;  // suffixes of tensors in old files that are no parameters
  std::function<DecoderSpec(const formats::Json& config, const std::string& source)> spec_from_hf;
  std::function<formats::Json(const DecoderSpec&)> hf_config;  // without dtype and tokenizer ids
  ForeignTensors hf_tensors;

  std::string gguf_architecture;
  std::function<DecoderSpec(const formats::GgufFile&)> spec_from_gguf;
  std::function<formats::GgufMetadata(const DecoderSpec&)> gguf_metadata;  // architecture keys only
  ForeignTensors gguf_tensors;
  // F32 tensors that follow from the spec alone (llama's rope_freqs.weight); empty: none.
  std::function<std::vector<std::pair<std::string, at::Tensor>>(const DecoderSpec&)> gguf_constants;
};

const Registry<Family>& families();

// ConfigError unless the spec's choices (norm, ffn, positions, windows, biases, ...; not its sizes, sharing
// and rotary bases) are those of `own`, but for the keys in `free`, and its rotary scaling is none or one of
// `scalings`.
void check_choices(const DecoderSpec& spec, const DecoderSpec& own, const std::set<std::string>& free,
                   const std::set<std::string>& scalings);

// The model that a spec describes, as Decoder's constructor says: validated, declared, not initialised; on
// at::kMeta only shapes. ConfigError.
std::unique_ptr<Model> make_model(const DecoderSpec& spec, at::Device device = at::kCPU);

}  // namespace retort::models
