// Bytes, and a stop after each piece of text: what a model wants that predicts a piece's bytes side by side
// and has to say where it ends. A piece is what GPT-2 cuts text into before it merges, by bytes:
//
//   (one space)? then a run of letters, or of digits, or of other visible bytes; a run of white space, which
//   leaves its last space to the piece after it. Bytes from 0x80 on are letters.
//
// Pieces of more than kLongest bytes are cut there, with no stop between: nothing is lost.
#include <algorithm>
#include <array>

#include "core/digest.h"
#include "core/error.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {
namespace {

constexpr int32_t kStop = 256;
constexpr size_t kLongest = 12;

enum class Kind { kSpace, kLetter, kDigit, kOther };

Kind kind_of(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte == ' ' || (byte >= '\t' && byte <= '\r')) return Kind::kSpace;
  if (byte >= '0' && byte <= '9') return Kind::kDigit;
  const unsigned char lower = byte | 0x20;
  return byte >= 0x80 || (lower >= 'a' && lower <= 'z') ? Kind::kLetter : Kind::kOther;
}

// Where the piece that begins at `begin` ends.
size_t end_of_piece(std::string_view text, size_t begin) {
  const bool led = text[begin] == ' ' && begin + 1 < text.size() && kind_of(text[begin + 1]) != Kind::kSpace;
  size_t end = begin + (led ? 1 : 0);
  const Kind kind = kind_of(text[end]);
  while (end < text.size() && kind_of(text[end]) == kind) ++end;
  if (kind == Kind::kSpace && end < text.size() && text[end - 1] == ' ' && end - 1 > begin) --end;
  return end;
}

class StopByteTokenizer final : public Tokenizer {
 public:
  StopByteTokenizer() {
    for (size_t byte = 0; byte < bytes_.size(); ++byte) bytes_[byte] = static_cast<char>(byte);
  }
  std::string name() const override { return "bytes+stop"; }
  int64_t vocabulary() const override { return kStop + 1; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(end_of_piece(text, begin), begin + kLongest);
      for (size_t i = begin; i < end; ++i) ids.push_back(static_cast<unsigned char>(text[i]));
      if (end - begin < kLongest) ids.push_back(kStop);
      begin = end;
    }
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += token_bytes(id);
    return text;
  }

  std::string_view token_bytes(int32_t id) const override {
    check<DataError>(id >= 0 && id <= kStop, "[stop byte tokenizer] an id must lie in 0 .. {}, got {}", kStop,
                     id);
    return id == kStop ? std::string_view() : std::string_view(&bytes_[static_cast<size_t>(id)], 1);
  }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override {
    return hex(xxh3("retort tokenizer: bytes+stop, 257 ids, id = byte, 256 behind pieces of up to 11 bytes"));
  }
  // Other software cannot cut text so.
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }

 private:
  std::array<char, kStop> bytes_{};
};

}  // namespace

std::unique_ptr<Tokenizer> make_stop_byte_tokenizer() { return std::make_unique<StopByteTokenizer>(); }

}  // namespace retort::data
