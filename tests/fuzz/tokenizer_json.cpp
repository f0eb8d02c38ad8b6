#include "data/tokenizers/tokenizer_json.h"

#include "data/tokenizers/bpe_tokenizer.h"
#include "tests/fuzz/reader.h"
#include "tests/fuzz/tokenize.h"

namespace retort::fuzz {

void tokenizer_json(Bytes input) {
  const Path path = put(folder("tokenizer_json") / "tokenizer.json", input);
  tokenize(path, [&] { return data::make_bpe_tokenizer(data::read_tokenizer_json(path)); });
}

}  // namespace retort::fuzz
