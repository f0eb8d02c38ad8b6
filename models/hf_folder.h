// Hugging Face model folders: config.json, model.safetensors (or shards with model.safetensors.index.json),
// both ways. Reading maps the files and copies each tensor once into its master. Missing, extra and misshapen
// tensors are named (DataError); tied weights may be absent or present (then they must be equal).
// Writing leaves a tied head out, and expands shared FFNs and repeated blocks, which transformers does not
// know. It goes to a temporary folder beside, renamed when whole; an older export of that name is replaced
// (IoError when something else stands there).
#pragma once

#include <map>
#include <memory>
#include <string>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/decoder.h"
#include "models/weight_map.h"

namespace retort::models {

std::unique_ptr<Decoder> load_hf_folder(const Path& directory);  // masters set; working bound to identity f32

// Extra files (tokenizer.json, tokenizer_config.json, ...) by name, and keys to merge into config.json
// (bos_token_id, ...). `map` gives the values that are written (f32); `dtype` f32, f16 or bf16.
struct HfExtras {
  std::map<std::string, std::string> files;
  formats::Json config;
};
void save_hf_folder(FileSystem& files, const Path& directory, const Decoder& model, WeightMap& map,
                    at::ScalarType dtype, const HfExtras& extras);

}  // namespace retort::models
