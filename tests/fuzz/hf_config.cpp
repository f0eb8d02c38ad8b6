// A config.json beside weights that it may fit: plain ones, and those of a quantized folder, which
// quantization_config describes.
#include "formats/safetensors.h"
#include "models/family.h"
#include "models/generation_facts.h"
#include "models/hf_folder.h"
#include "tests/fuzz/folders.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void hf_config(Bytes input) {
  static const Path bare = folder("hf_config"), plain = plain_weights(folder("hf_plain")),
                    packed = packed_weights(folder("hf_packed"));
  for (const Path& directory : {bare, plain, packed}) {
    put(directory / "config.json", input);
    accepts<DataError>(directory.string(), [&] { models::hf_generation(directory); });
    if (!accepts<DataError>(directory.string(), [&] { models::hf_spec(directory); })) continue;
    if (directory != bare) accepts<DataError>(directory.string(), [&] { models::load_hf_folder(directory); });
  }
}

}  // namespace retort::fuzz
