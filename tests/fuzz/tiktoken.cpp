#include "data/tokenizers/tiktoken.h"

#include "data/tokenizers/bpe_tokenizer.h"
#include "tests/fuzz/reader.h"
#include "tests/fuzz/tokenize.h"

namespace retort::fuzz {

void tiktoken(Bytes input) {
  const Path path = put(folder("tiktoken") / "tokenizer.model", input);
  data::looks_like_tiktoken(as_text(input));
  tokenize(path, [&] { return data::make_bpe_tokenizer(data::read_tiktoken(path)); });
}

}  // namespace retort::fuzz
