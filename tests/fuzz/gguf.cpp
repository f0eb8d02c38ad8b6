// A GGUF is read as a list, as a vocabulary and as a model.
#include "formats/gguf.h"

#include "core/digest.h"
#include "data/tokenizers/tokenizer.h"
#include "models/generation_facts.h"
#include "models/gguf_model.h"
#include "tests/fuzz/reader.h"
#include "tests/fuzz/tokenize.h"

namespace retort::fuzz {

void gguf(Bytes input) {
  const Path path = put(folder("gguf") / "model.gguf", input);
  const std::string where = path.string();
  const bool opens = accepts<DataError>(where, [&] {
    const formats::GgufFile file(path);
    for (const auto& tensor : file.tensors()) {
      xxh3(file.bytes(tensor));
      accepts<DataError>(where, [&] { file.values(tensor.name); });  // a type without values
    }
    accepts<DataError>(where, [&] { models::end_tokens(models::gguf_generation(file), 1000); });
  });
  if (!opens) return;
  tokenize(path, [&] { return data::open_tokenizer(path); });
  if (accepts<DataError>(where, [&] { models::gguf_spec(path); }))
    accepts<DataError>(where, [&] { models::load_gguf(path); });
}

}  // namespace retort::fuzz
