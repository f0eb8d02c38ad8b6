// The shape, the tokenizer and the adapters of a model on disk without its weights: from the manifest of a checkpoint,
// the config.json of a Hugging Face folder, the metadata of a GGUF, the header of a llama2.c file, the
// adapter_config.json of a folder of peft. Takes milliseconds whatever the model's size.
#pragma once

#include <memory>
#include <optional>

#include "core/file.h"
#include "data/tokenizers/tokenizer.h"
#include "models/adapters.h"
#include "models/decoder_spec.h"

namespace retort::artifacts {

// What open_model() of the path would have; nothing where the path leads to no model, or to several.
// DataError for a damaged file, or an architecture that is not known.
std::optional<models::DecoderSpec> model_shape(const Path& path);
// The tokenizer of an HF folder or a GGUF; errors as open_tokenizer()'s. One that spells bytes is that of bytes.
std::unique_ptr<data::Tokenizer> foreign_tokenizer(const Path& path);
// nullptr where it would have none.
std::unique_ptr<data::Tokenizer> model_tokenizer(const Path& path);
// That of a new model: bytes for 256 tokens, else none.
std::unique_ptr<data::Tokenizer> new_tokenizer(const models::DecoderSpec& spec);
// Those that open_model() would leave unmerged; nothing where it has none.
std::optional<models::AdapterOptions> model_adapters(const Path& path);

}  // namespace retort::artifacts
