// What is done with a vocabulary of any file.
#pragma once

#include "data/tokenizers/tokenizer.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

// Texts that reach byte fallback, digits, spaces, contractions, other scripts and bytes that are no UTF-8; and
// every id.
template <class Open>
void tokenize(const Path& path, const Open& open) {
  std::unique_ptr<data::Tokenizer> tokenizer;
  if (!accepts<DataError>(path.string(), [&] { tokenizer = open(); })) return;
  for (const char* text :
       {"", " It's  12345 cats\r\n\n <s>[INST] </s>", "\xc3\xa9t\xc3\xa9 \xe4\xb8\xad\xff\xf0\x9f"})
    accepts<DataError>("[splitter]", [&] {  // a pattern that takes too many steps
      tokenizer->decode(tokenizer->encode(text));
    });
  for (int64_t id = 0; id < std::min<int64_t>(tokenizer->vocabulary(), 300); ++id) {
    tokenizer->token_bytes(static_cast<int32_t>(id));
    tokenizer->is_special(static_cast<int32_t>(id));
  }
  tokenizer->prefix();
  tokenizer->fingerprint();
  tokenizer->hf_files();
}

}  // namespace retort::fuzz
