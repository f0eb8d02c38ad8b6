// Adapters as peft keeps them, both ways: adapter_config.json and adapter_model.safetensors (docs/formats.md has the
// tensors, docs/finetuning.md the keys). The keys that choose modules must choose exactly the tensors that are there.
// Whatever would change results and is not known here is refused: DataError naming the file and the key or tensor.
// base_layer tensors must be the base's, by which an adapter for another base shows. Dropout is for training in peft, and
// not read. What the base was kept as while the adapter was trained is metadata of our own, "retort.base"; without it
// the base is used as it is.
#pragma once

#include <map>
#include <string>

#include "core/file.h"
#include "formats/json.h"
#include "models/adapters.h"

namespace retort::models {

inline constexpr const char* kPeftConfig = "adapter_config.json";
inline constexpr const char* kPeftTensors = "adapter_model.safetensors";
inline constexpr const char* kBaseForm = "retort.base";

struct PeftConfig {
  AdapterOptions options;
  std::string base;  // base_model_name_or_path: a hint
};
PeftConfig read_peft_config(const Path& directory);
formats::Json peft_config_json(const Model& model, const PeftConfig& config);

// What read_peft_config() says of a folder of a model that adapt() made with these options: each module by its name.
AdapterOptions kept_by_peft(const Model& model, const AdapterOptions& options);

// The base with the adapter's tensors; working weights are the caller's to bind.
std::unique_ptr<Model> load_peft(const Path& directory, const PeftConfig& config,
                                 std::unique_ptr<Model> base);

// Of a model that adapt() made with these options. It goes to a temporary folder beside the target, renamed
// when it is whole; only an older adapter of that name is replaced (IoError). `beside`: more files by name.
void save_peft(FileSystem& files, const Path& directory, const Model& model, const PeftConfig& config,
               const std::map<std::string, std::string>& beside = {});

}  // namespace retort::models
