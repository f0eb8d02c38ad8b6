// model.safetensors.index.json beside a config.json and two files of weights.
#include "models/hf_folder.h"
#include "tests/fuzz/folders.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void hf_index(Bytes input) {
  static const Path directory = split_weights(folder("hf_index"));
  put(directory / "model.safetensors.index.json", input);
  // A file that is not there is the system's to refuse.
  accepts<DataError, IoError>(directory.string(), [&] { models::load_hf_folder(directory); });
}

}  // namespace retort::fuzz
