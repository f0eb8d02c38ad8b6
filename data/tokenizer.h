// Text to token ids and back. Immutable, so any thread may use it.
// The fingerprint names a vocabulary: equal fingerprints mean equal ids for equal text. It stands in token
// shards, checkpoints and teacher caches.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace retort::data {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;  // "bytes", or the file it came from
  virtual int64_t vocabulary() const = 0;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // DataError for an id beyond the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  virtual std::optional<int32_t> separator() const = 0;  // put between documents, if the vocabulary has one
  virtual std::string fingerprint() const = 0;           // 16 hex digits
  // What a GGUF file and an HF folder need so that other software tokenizes alike.
  virtual formats::GgufMetadata gguf_metadata() const = 0;
  virtual std::map<std::string, std::string> hf_files() const = 0;  // file name -> content
};

// 256 tokens, id = byte; no special tokens. In a GGUF it is the byte-level BPE "gpt2" with one merge that
// makes nothing, since llama.cpp refuses an empty list; in an HF folder a byte-level BPE without merges.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

// The tokenizers that have a name: "bytes" only, for now. ConfigError listing what is known.
std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name);
std::vector<std::string> tokenizer_names();

}  // namespace retort::data
