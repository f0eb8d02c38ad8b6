// Bytes as tokens, and how other software is told so.
#include <numeric>

#include "core/digest.h"
#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/tokenizer.h"
#include "formats/json.h"

namespace retort::data {
namespace {

constexpr int32_t kBytes = 256;

class ByteTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "bytes"; }
  int64_t vocabulary() const override { return kBytes; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text(ids.size(), '\0');
    for (size_t i = 0; i < ids.size(); ++i) {
      check<DataError>(ids[i] >= 0 && ids[i] < kBytes, "[byte tokenizer] an id must lie in 0 .. {}, got {}",
                       kBytes - 1, ids[i]);
      text[i] = static_cast<char>(ids[i]);
    }
    return text;
  }

  std::string_view token_bytes(int32_t id) const override {
    check<DataError>(id >= 0 && id < kBytes, "[byte tokenizer] an id must lie in 0 .. {}, got {}", kBytes - 1,
                     id);
    return std::string_view(bytes_).substr(static_cast<size_t>(id), 1);
  }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override {
    return hex(xxh3("retort tokenizer: bytes, 256 ids, id = byte"));
  }
  formats::GgufMetadata gguf_metadata() const override;
  std::map<std::string, std::string> hf_files() const override;

 private:
  const std::string bytes_ = [] {
    std::string all(kBytes, '\0');
    std::iota(all.begin(), all.end(), '\0');
    return all;
  }();
};

formats::GgufMetadata ByteTokenizer::gguf_metadata() const {
  constexpr int32_t kNormal = 1;
  return {
      {"tokenizer.ggml.model", std::string("gpt2")},
      {"tokenizer.ggml.pre", std::string("gpt-2")},
      {"tokenizer.ggml.tokens", std::vector<std::string>(byte_alphabet().begin(), byte_alphabet().end())},
      {"tokenizer.ggml.token_type", std::vector<int32_t>(kBytes, kNormal)},
      // An empty list is refused. "qz" is no token, so the reader splits it into its bytes again.
      {"tokenizer.ggml.merges", std::vector<std::string>{"q z"}},
      // Left out, both would be 11 (a vertical tab), and the end-of-sequence token ends generation: byte 0 is
      // the one that no text holds. Neither is ever added to a prompt.
      {"tokenizer.ggml.bos_token_id", uint32_t{0}},
      {"tokenizer.ggml.eos_token_id", uint32_t{0}},
      {"tokenizer.ggml.add_bos_token", false},
      {"tokenizer.ggml.add_eos_token", false},
  };
}

std::map<std::string, std::string> ByteTokenizer::hf_files() const {
  using formats::Json;
  Json vocabulary = Json::object();
  int32_t id = 0;
  for (const std::string& token : byte_alphabet()) vocabulary[token] = id++;
  // use_regex false: the whole text is one piece, and without merges each byte stays a token.
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", Json::array()},
                          {"normalizer", nullptr},
                          {"pre_tokenizer", byte_level},
                          {"post_processor", nullptr},
                          {"decoder", byte_level},
                          {"model",
                           {{"type", "BPE"},
                            {"dropout", nullptr},
                            {"unk_token", nullptr},
                            {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr},
                            {"fuse_unk", false},
                            {"byte_fallback", false},
                            {"ignore_merges", false},
                            {"vocab", vocabulary},
                            {"merges", Json::array()}}}};
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"clean_up_tokenization_spaces", false}};
  return {{"tokenizer.json", tokenizer.dump(1) + "\n"}, {"tokenizer_config.json", config.dump(1) + "\n"}};
}

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace retort::data
