// A byte-pair tokenizer, byte-level (GPT-2, Llama 3, Qwen) or over characters with bytes to fall back on
// (what SentencePiece makes: Llama 2, Mistral, Gemma). Ids equal those of Hugging Face's tokenizers for the
// same tokenizer.json, without its special tokens around the text (prefix() has those that go before). Text
// that is no UTF-8 is kept, where other software puts U+FFFD: each stray byte is a character of its own, a
// byte-level or byte-fallback vocabulary has tokens for it, and decoding returns it.
#pragma once

#include <memory>

#include "data/tokenizers/bpe_spec.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {

// DataError when the spec contradicts itself or asks for what is not supported.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeSpec spec);

}  // namespace retort::data
