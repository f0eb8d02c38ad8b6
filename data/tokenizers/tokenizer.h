// Text to token ids and back. Immutable, so any thread may use it.
// The fingerprint names a vocabulary: equal fingerprints mean equal ids for equal text. It is kept in token
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

#include "core/file.h"
#include "formats/gguf.h"

namespace retort::data {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;  // "bytes", or the file it came from
  virtual int64_t vocabulary() const = 0;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // `text` where it continues `before`: encode() without what that puts before a whole text, such as
  // SentencePiece's "▁". Parts that are cut where no token reaches across give the ids of the whole.
  virtual std::vector<int32_t> encode_after(std::string_view /*before*/, std::string_view text) const {
    return encode(text);
  }
  // DataError for an id beyond the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  // What a token writes after other text (a word's token with its leading space); valid while *this lives.
  // decode() is these in turn, less a space that encode() put before the text. DataError as decode().
  virtual std::string_view token_bytes(int32_t id) const = 0;
  // A mark of control (end of text, of a turn) rather than text; decode() writes it out all the same.
  virtual bool is_special(int32_t id) const = 0;
  // Added to the vocabulary by name rather than learned: every mark of control, and words that users add.
  virtual bool is_added(int32_t id) const { return is_special(id); }
  virtual std::optional<int32_t> separator() const = 0;  // put between documents, if the vocabulary has one
  // What the vocabulary's makers put before a text (its begin token); encode() does not.
  virtual std::vector<int32_t> prefix() const { return {}; }
  // The same without prefix(), for texts that do not begin with it; nullptr where there is none.
  virtual std::unique_ptr<Tokenizer> without_prefix() const { return nullptr; }
  virtual std::string chat_template() const { return ""; }  // Jinja; "" for none
  virtual std::string fingerprint() const = 0;              // 16 hex digits
  // What a GGUF file and an HF folder need so that other software tokenizes alike.
  virtual formats::GgufMetadata gguf_metadata() const = 0;
  // File name -> content. open_tokenizer() of a folder with them makes the same tokenizer again.
  virtual std::map<std::string, std::string> hf_files() const = 0;
};

// 256 tokens, id = byte; no special tokens. In a GGUF it is the byte-level BPE "gpt2" with one merge that
// makes nothing, since llama.cpp refuses an empty list; in an HF folder a byte-level BPE without merges.
std::unique_ptr<Tokenizer> make_byte_tokenizer();
// Bytes, and 256 after each piece of text of less than 12 bytes: for models that predict a piece's bytes
// side by side (models/bytes/). Other software has no such tokenizer.
std::unique_ptr<Tokenizer> make_stop_byte_tokenizer();

// A tokenizer.json, a SentencePiece .model, a tiktoken file, one of a pair (vocab.json and merges.txt, of
// GPT-2's or Qwen2's class; encoder.json and vocab.bpe), or a GGUF; of a folder its tokenizer.json, its
// tokenizer.model (SentencePiece's or tiktoken's) or such a pair, the first that is there; with the
// files beside it (companions.h). Byte-pair vocabularies only: Unigram and WordPiece are refused by name, and so is
// another class of a pair (DataError).
std::unique_ptr<Tokenizer> open_tokenizer(const Path& path);

// The same for an embedding of `rows` rows: what has an id beyond them is no token of a GGUF, and a text that uses
// it is refused (DataError). Some published vocabularies have an added token that the model has no row for.
std::unique_ptr<Tokenizer> limited(std::unique_ptr<Tokenizer> tokenizer, int64_t rows);

// The address of a tokenizer, wherever one is named: "bytes", or a path for open_tokenizer(). ConfigError
// listing the names that are known, IoError for a path that leads nowhere.
std::unique_ptr<Tokenizer> make_tokenizer(std::string_view address);
// The files that a copy of the tokenizer consists of: hf_files(), or none when its name is enough.
std::map<std::string, std::string> tokenizer_files(const Tokenizer& tokenizer);
// The other way: a tokenizer by its name, or from its files in a directory.
std::unique_ptr<Tokenizer> copied_tokenizer(const std::string& name, const Path& directory);

}  // namespace retort::data
