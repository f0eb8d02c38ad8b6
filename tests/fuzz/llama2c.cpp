#include "models/llama2c.h"

#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void llama2c(Bytes input) {
  const Path path = put(folder("llama2c") / "model.bin", input);
  accepts<DataError>(path.string(), [&] { models::llama2c_spec(path); });
  accepts<DataError>(path.string(), [&] { models::load_llama2c(path); });
}

}  // namespace retort::fuzz
