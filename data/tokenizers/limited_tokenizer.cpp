// A vocabulary that is larger than a model's embedding. Gemma 3, as published for text alone, has the token of an
// image after its last row.
#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/tokenizer.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

class LimitedTokenizer final : public Tokenizer {
 public:
  LimitedTokenizer(std::unique_ptr<Tokenizer> whole, int64_t rows) : whole_(std::move(whole)), rows_(rows) {}

  std::string name() const override { return whole_->name(); }
  int64_t vocabulary() const override { return rows_; }
  std::vector<int32_t> encode(std::string_view text) const override { return checked(whole_->encode(text)); }
  std::vector<int32_t> encode_after(std::string_view before, std::string_view text) const override {
    return checked(whole_->encode_after(before, text));
  }
  std::string decode(std::span<const int32_t> ids) const override {
    return whole_->decode(checked({ids.begin(), ids.end()}));
  }
  std::string_view token_bytes(int32_t id) const override { return whole_->token_bytes(checked({id})[0]); }
  bool is_special(int32_t id) const override { return whole_->is_special(checked({id})[0]); }
  bool is_added(int32_t id) const override { return whole_->is_added(checked({id})[0]); }
  std::optional<int32_t> separator() const override {
    const auto id = whole_->separator();
    return id && *id < rows_ ? id : std::nullopt;
  }
  std::vector<int32_t> prefix() const override { return checked(whole_->prefix()); }
  std::unique_ptr<Tokenizer> without_prefix() const override {
    auto without = whole_->without_prefix();
    return without ? limited(std::move(without), rows_) : nullptr;
  }
  std::string chat_template() const override { return whole_->chat_template(); }
  std::string fingerprint() const override { return whole_->fingerprint(); }
  std::map<std::string, std::string> hf_files() const override { return whole_->hf_files(); }
  formats::GgufMetadata gguf_metadata() const override {
    formats::GgufMetadata metadata = whole_->gguf_metadata();
    const auto cut = [&](auto& list) { list.resize(std::min(list.size(), static_cast<size_t>(rows_))); };
    for (auto& [key, value] : metadata) {
      if (key == "tokenizer.ggml.tokens") cut(std::get<std::vector<std::string>>(value));
      if (key == "tokenizer.ggml.token_type") cut(std::get<std::vector<int32_t>>(value));
      if (key == "tokenizer.ggml.scores") cut(std::get<std::vector<float>>(value));
    }
    return metadata;
  }

 private:
  std::vector<int32_t> checked(std::vector<int32_t> ids) const {
    for (const int32_t id : ids)
      check<DataError>(id < rows_, "{}: the text uses token {}, {}, and the model's embedding has {} rows",
                       name(), id, formats::shown(whole_->token_bytes(id)), rows_);
    return ids;
  }

  std::unique_ptr<Tokenizer> whole_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<Tokenizer> limited(std::unique_ptr<Tokenizer> tokenizer, int64_t rows) {
  if (tokenizer->vocabulary() <= rows) return tokenizer;
  return std::make_unique<LimitedTokenizer>(std::move(tokenizer), rows);
}

}  // namespace retort::data
