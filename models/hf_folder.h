// Hugging Face model folders: config.json, model.safetensors (or shards with model.safetensors.index.json),
// both ways. Reading maps the files and copies each tensor once into its master. Missing, extra and misshapen
// tensors are named (DataError); tied weights may be absent or present (then they must be equal). A folder
// that holds the feed-forward network of layer 0 only is a model that shares it (MobiLlama). Quantized
// folders are read as the values of their codes (hf_quantized.h). Writing leaves a tied head out, and expands
// shared FFNs and repeated blocks, which transformers does not know. It goes to a temporary folder beside the
// target, renamed when it is whole. Only an older export of that name is replaced: IoError, naming the entry,
// when the folder holds a file that the new export would not write.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/decoder.h"
#include "models/weight_map.h"

namespace retort::models {

std::unique_ptr<Decoder> load_hf_folder(const Path& directory);  // masters set; working bound to identity f32
// What load_hf_folder() would make, without its weights; of a folder that holds none, what config.json says.
DecoderSpec hf_spec(const Path& directory);
bool holds_weights(const Path& directory);  // model.safetensors, or the index of several

// A matrix that a folder stores in a form of its own: quantized.
struct HfMatrix {
  std::string name;                    // without ".weight": "model.layers.0.self_attn.qkv_proj"
  std::vector<const Parameter*> rows;  // the parameters that it holds, one below another
  bool transposed = false;             // [in, out] in the file (GPT-2's Conv1D)
};
// What takes the place of NAME.weight, by the last part of its name: {"weight_packed", ...}, ...
// Nothing: the plain weight does.
using HfPacker = std::function<formats::NamedTensors(const HfMatrix&)>;

// Extra files (tokenizer.json, tokenizer_config.json, ...) by name, and keys to merge into config.json
// (bos_token_id, ...); `generation` are the fields of generation_config.json (models/generation_facts.h),
// which takes the ids that it lacks from config.json. `map` gives the values that are written (f32); `dtype`
// f32, f16 or bf16.
struct HfExtras {
  std::map<std::string, std::string> files;
  formats::Json config;
  formats::Json generation = {};
  HfPacker pack = {};                   // asked for every matrix of attention and feed-forward layers
  int64_t shard_bytes = 5'000'000'000;  // more become several files and an index
};
void save_hf_folder(FileSystem& files, const Path& directory, const Model& model, WeightMap& map,
                    at::ScalarType dtype, const HfExtras& extras);

}  // namespace retort::models
