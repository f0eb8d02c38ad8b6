// The input is vocab.json and merges.txt, with a byte 0 between them.
#include <algorithm>

#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/tiktoken.h"
#include "tests/fuzz/reader.h"
#include "tests/fuzz/tokenize.h"

namespace retort::fuzz {

void gpt2_pair(Bytes input) {
  const size_t first = std::min(as_text(input).find('\0'), input.size());
  const Path directory = folder("gpt2_pair");
  const Path vocabulary = put(directory / "vocab.json", input.first(first));
  const Path merges = put(directory / "merges.txt", input.subspan(std::min(first + 1, input.size())));
  tokenize(directory, [&] { return data::make_bpe_tokenizer(data::read_gpt2_pair(vocabulary, merges, "gpt-2")); });
}

}  // namespace retort::fuzz
