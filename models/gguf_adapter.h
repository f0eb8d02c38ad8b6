// A GGUF adapter, for llama.cpp's --lora: for each weight of the base NAME.lora_a [rank, in] and
// NAME.lora_b [out, rank], F32, without transposing either; of token_embd.weight both the other way round.
// Rows of B are in the order of the base's rows. The file has one alpha, and the reader divides it by each
// rank: where the factors are not that, B takes what is missing.
//
// It can say no row lengths (DoRA), no part that is trained whole, and no table of a tied model, which
// llama.cpp would use on both sides: ConfigError naming what to do instead.
#pragma once

#include <string>

#include "core/file.h"
#include "models/adapters.h"

namespace retort::models {

// Why there is no such file of the model's adapters; "" where there is.
std::string gguf_adapter_misfit(const Model& model, const AdapterOptions& options);

// Of a model that adapt() made with these options. An older GGUF of that name is replaced; IoError for
// another file.
void save_gguf_adapter(FileSystem& files, const Path& path, const Model& model, const AdapterOptions& options,
                       const std::string& name);

}  // namespace retort::models
