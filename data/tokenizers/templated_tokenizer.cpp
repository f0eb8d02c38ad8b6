#include "data/tokenizers/templated_tokenizer.h"

#include "formats/json.h"

namespace retort::data {
namespace {

constexpr const char* kConfig = "tokenizer_config.json";
constexpr std::string_view kKey = "tokenizer.chat_template";  // begins the keys of all of them

class TemplatedTokenizer final : public Tokenizer {
 public:
  TemplatedTokenizer(std::unique_ptr<Tokenizer> below, std::string text)
      : below_(std::move(below)), text_(std::move(text)) {}

  std::string name() const override { return below_->name(); }
  int64_t vocabulary() const override { return below_->vocabulary(); }
  std::vector<int32_t> encode(std::string_view text) const override { return below_->encode(text); }
  std::vector<int32_t> encode_after(std::string_view before, std::string_view text) const override {
    return below_->encode_after(before, text);
  }
  std::string decode(std::span<const int32_t> ids) const override { return below_->decode(ids); }
  std::string_view token_bytes(int32_t id) const override { return below_->token_bytes(id); }
  bool is_special(int32_t id) const override { return below_->is_special(id); }
  bool is_added(int32_t id) const override { return below_->is_added(id); }
  std::optional<int32_t> separator() const override { return below_->separator(); }
  std::vector<int32_t> prefix() const override { return below_->prefix(); }
  std::unique_ptr<Tokenizer> without_prefix() const override {
    auto without = below_->without_prefix();
    return without ? std::make_unique<TemplatedTokenizer>(std::move(without), text_) : nullptr;
  }
  std::string chat_template() const override { return text_; }
  std::string fingerprint() const override { return below_->fingerprint(); }

  formats::GgufMetadata gguf_metadata() const override {
    formats::GgufMetadata out = below_->gguf_metadata();
    std::erase_if(out, [](const auto& entry) { return entry.first.starts_with(kKey); });
    out.emplace_back(kKey, text_);
    return out;
  }
  std::map<std::string, std::string> hf_files() const override {
    std::map<std::string, std::string> out = below_->hf_files();
    formats::Json config = formats::parse_json(out.at(kConfig), kConfig);
    config["chat_template"] = text_;
    out[kConfig] = config.dump(1) + "\n";
    return out;
  }

 private:
  std::unique_ptr<Tokenizer> below_;
  std::string text_;
};

}  // namespace

std::unique_ptr<Tokenizer> with_chat_template(std::unique_ptr<Tokenizer> tokenizer, std::string text) {
  if (tokenizer->chat_template() == text || !tokenizer_files(*tokenizer).contains(kConfig)) return tokenizer;
  return std::make_unique<TemplatedTokenizer>(std::move(tokenizer), std::move(text));
}

}  // namespace retort::data
