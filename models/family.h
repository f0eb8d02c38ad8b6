// How one published architecture maps to a DecoderSpec, and what its tensors are called in other people's
// files. One file in models/families/ and one row in its registry.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/registry.h"
#include "formats/gguf.h"
#include "formats/json.h"
#include "models/decoder.h"

namespace retort::models {

// One parameter's name and form in a foreign file.
struct ForeignTensor {
  std::string parameter;  // ours, aliases included: "layers.3.attn.q.weight"
  std::string name;       // theirs
  bool transposed = false;      // stored [in, out] (GPT-2's Conv1D in HF)
  int64_t rope_heads = 0;       // > 0: rows are in interleaved rotary order, this many heads (GGUF llama q and k)
  // A slice of a fused tensor: rows [row_begin, row_begin + rows) of `name`; rows = 0: all of it.
  int64_t row_begin = 0, rows = 0;
};

struct Family {
  std::string name;                         // "llama": the row, and model.family in recipes
  std::vector<std::string> hf_model_types;  // config.json model_type values it reads
  std::string gguf_architecture;

  std::function<DecoderSpec(const formats::Json& config, const std::string& source)> spec_from_hf;
  std::function<formats::Json(const DecoderSpec&)> hf_config;  // without tokenizer ids
  std::function<std::vector<ForeignTensor>(const DecoderSpec&)> hf_tensors;

  std::function<DecoderSpec(const formats::GgufFile&)> spec_from_gguf;
  std::function<formats::GgufMetadata(const DecoderSpec&)> gguf_metadata;  // architecture keys only
  std::function<std::vector<ForeignTensor>(const DecoderSpec&)> gguf_tensors;
};

const Registry<Family>& families();

}  // namespace retort::models
