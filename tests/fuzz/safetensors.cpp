#include "formats/safetensors.h"

#include "core/digest.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void safetensors(Bytes input) {
  const Path path = put(folder("safetensors") / "model.safetensors", input);
  accepts<DataError>(path.string(), [&] {
    const formats::SafetensorsFile file(path);
    for (const auto& [name, entry] : file.entries()) {
      xxh3(file.bytes(name));
      accepts<DataError>(path.string(), [&, &name = name] {  // a dtype that LibTorch lacks
        const at::Tensor tensor = file.tensor(name);
        RETORT_ASSERT(tensor.nbytes() == file.bytes(name).size());
      });
    }
  });
}

}  // namespace retort::fuzz
