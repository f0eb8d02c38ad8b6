#include "data/tokenizers/sentencepiece.h"

#include "data/tokenizers/bpe_tokenizer.h"
#include "tests/fuzz/reader.h"
#include "tests/fuzz/tokenize.h"

namespace retort::fuzz {

void sentencepiece(Bytes input) {
  const Path path = put(folder("sentencepiece") / "tokenizer.model", input);
  tokenize(path, [&] { return data::make_bpe_tokenizer(data::spec_of(data::read_sentencepiece(path))); });
}

}  // namespace retort::fuzz
