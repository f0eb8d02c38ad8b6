// Hugging Face folders of a model with a hundred weights, without the file that is fuzzed.
#pragma once

#include "core/file.h"

namespace retort::fuzz {

Path plain_weights(Path directory);   // model.safetensors
Path packed_weights(Path directory);  // the same as compressed-tensors packs integers
Path split_weights(Path directory);   // config.json, and the weights in two files

}  // namespace retort::fuzz
