// The shape of a MODEL (launch/model_address.h) without its weights: from the manifest of a checkpoint, the
// config.json of a Hugging Face folder, the metadata of a .gguf, a preset. Takes milliseconds whatever the
// model's size.
#pragma once

#include <optional>
#include <string>

#include "core/file.h"
#include "models/decoder.h"

namespace retort::launch {

// Nothing where it is not there yet, or is of a kind that only loading tells. DataError for damaged files.
std::optional<models::DecoderSpec> model_shape(const std::string& address, const Path& run);

}  // namespace retort::launch
