#include "data/tokenizers/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "core/digest.h"
#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/piece_cache.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/token_decoder.h"
#include "data/tokenizers/tokenizer_json.h"
#include "data/tokenizers/unicode.h"

namespace retort::data {
namespace {

constexpr int32_t kNone = -1;
constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581, a space in SentencePiece's vocabularies

std::vector<AddedToken> where_normalized(const BpeSpec& spec, bool wanted, const Normalizer& normalizer) {
  std::vector<AddedToken> out;
  for (const AddedToken& token : spec.added)
    if (token.normalized == wanted) out.push_back(token);
  if (wanted && !normalizer.empty())
    for (AddedToken& token : out) token.text = normalizer.apply(token.text);
  return out;
}

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeSpec spec);

  std::string name() const override { return spec_.name; }
  int64_t vocabulary() const override { return static_cast<int64_t>(spec_.tokens.size()); }
  std::vector<int32_t> encode(std::string_view text) const override { return encode_after({}, text); }
  std::vector<int32_t> encode_after(std::string_view before, std::string_view text) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::string_view token_bytes(int32_t id) const override { return bytes_[checked(id)]; }
  bool is_special(int32_t id) const override { return special_[checked(id)]; }
  std::optional<int32_t> separator() const override { return spec_.end; }
  bool is_added(int32_t id) const override { return added_[checked(id)]; }
  std::vector<int32_t> prefix() const override { return frame_.before; }
  std::unique_ptr<Tokenizer> without_prefix() const override {
    if (frame_.before.empty()) return nullptr;
    BpeSpec spec = spec_;
    spec.post_processor = template_of(spec_, {{}, frame_.after});
    return std::make_unique<BpeTokenizer>(std::move(spec));
  }
  std::string chat_template() const override { return spec_.chat_template; }
  std::string fingerprint() const override { return fingerprint_; }
  formats::GgufMetadata gguf_metadata() const override { return to_gguf(spec_); }
  std::map<std::string, std::string> hf_files() const override { return to_hf_files(spec_); }

 private:
  // What one call works with; kept between calls, with the pieces that it knows.
  struct Scratch {
    PieceCache cache;
    BpeMerges::Scratch merges;
    std::vector<size_t> ends;
    std::vector<int32_t> symbols;
  };
  class Lease;

  size_t checked(int32_t id) const {
    check<DataError>(id >= 0 && static_cast<size_t>(id) < bytes_.size(),
                     "[{}] an id must lie in 0 .. {}, got {}", spec_.name, bytes_.size() - 1, id);
    return static_cast<size_t>(id);
  }
  void index_symbols();
  bool words_begin_with_marks() const;
  std::string make_fingerprint() const;

  void encode_normalized(std::string_view text, Before at, Scratch& scratch, std::vector<int32_t>& out) const;
  void encode_plain(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const;
  void encode_piece(std::string_view piece, size_t readable, Scratch& scratch,
                    std::vector<int32_t>& out) const;
  void merge_piece(std::string_view piece, Scratch& scratch) const;
  void start_symbols(std::string_view piece, std::vector<int32_t>& symbols) const;

  BpeSpec spec_;
  TextFrame frame_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  TokenDecoder decoder_;
  AddedTokenFinder added_raw_, added_normalized_;
  BpeMerges merges_;
  std::unique_ptr<Splitter> words_;  // cuts a character vocabulary's text where no merge can reach across
  std::vector<std::string> bytes_;   // by id
  std::vector<bool> special_, added_;
  std::array<int32_t, 256> byte_ids_;                         // of tokens that stand for one byte, or kNone
  std::unordered_map<std::string_view, int32_t> characters_;  // tokens of one character
  std::unordered_map<std::string_view, int32_t> whole_;       // with ignore_merges: all
  bool bytes_complete_ = false;
  std::string fingerprint_;

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;
};

// A scratch for the time of a call.
class BpeTokenizer::Lease {
 public:
  explicit Lease(const BpeTokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    if (!owner_.idle_.empty()) {
      scratch_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    } else {
      scratch_ = std::make_unique<Scratch>();
    }
  }
  ~Lease() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(scratch_));
  }
  Scratch& operator*() const { return *scratch_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Scratch> scratch_;
};

BpeTokenizer::BpeTokenizer(BpeSpec spec)
    : spec_((validate(spec), std::move(spec))),
      frame_(frame_of(spec_)),
      normalizer_(spec_.normalizer, spec_.name),
      pre_tokenizer_(spec_.pre_tokenizer, spec_.name),
      decoder_(spec_.decoder, spec_.name),
      added_raw_(where_normalized(spec_, false, normalizer_)),
      added_normalized_(where_normalized(spec_, true, normalizer_)),
      merges_(spec_.merges) {
  special_.assign(spec_.tokens.size(), false);
  added_.assign(spec_.tokens.size(), false);
  for (const AddedToken& token : spec_.added) {
    special_[static_cast<size_t>(token.id)] = token.special;
    added_[static_cast<size_t>(token.id)] = true;
  }
  // Added tokens are text already, not of the byte alphabet; "▁" is a space in them too.
  for (size_t id = 0; id < spec_.tokens.size(); ++id)
    bytes_.push_back(added_[id] && pre_tokenizer_.byte_level() ? spec_.tokens[id]
                                                               : decoder_.bytes(spec_.tokens[id]));
  index_symbols();
  if (!pre_tokenizer_.byte_level() && words_begin_with_marks())
    words_ = make_mark_splitter(std::string(kMark));
  fingerprint_ = make_fingerprint();
}

void BpeTokenizer::index_symbols() {
  byte_ids_.fill(kNone);
  const bool byte_level = pre_tokenizer_.byte_level();
  const TokenIndex index(spec_.tokens);
  for (size_t byte = 0; byte < 256; ++byte) {
    if (!byte_level && !spec_.byte_fallback) break;
    const auto value = static_cast<unsigned char>(byte);
    byte_ids_[byte] = index.find(byte_level ? byte_alphabet()[byte] : byte_token(value)).value_or(kNone);
  }
  bytes_complete_ = std::find(byte_ids_.begin(), byte_ids_.end(), kNone) == byte_ids_.end();
  for (size_t id = 0; id < spec_.tokens.size(); ++id) {
    const std::string& token = spec_.tokens[id];
    if (token.empty()) continue;
    if (!byte_level && decode_utf8(token.data(), token.data() + token.size()).bytes == token.size())
      characters_.emplace(token, static_cast<int32_t>(id));
    if (!spec_.ignore_merges) continue;
    if (!byte_level)
      whole_.emplace(token, static_cast<int32_t>(id));
    else if (!added_[id] && from_byte_alphabet(token))
      whole_.emplace(bytes_[id], static_cast<int32_t>(id));
  }
}

// Whether "▁" is at the start of tokens only, alone or in a run.
bool BpeTokenizer::words_begin_with_marks() const {
  if (!characters_.contains(kMark)) return false;
  for (size_t id = 0; id < spec_.tokens.size(); ++id) {
    const std::string_view token = spec_.tokens[id];
    size_t run = 0;
    while (token.substr(run).starts_with(kMark)) run += kMark.size();
    if (!added_[id] && token.find(kMark, run) != token.npos) return false;
  }
  return true;
}

std::string BpeTokenizer::make_fingerprint() const {
  std::string text = fmt::format("retort tokenizer: bpe 1\n{}\n{}\n{} {}\n", normalizer_.rule(),
                                 pre_tokenizer_.rule(), spec_.ignore_merges, spec_.byte_fallback);
  // Where every byte has a token nothing is ever unknown.
  if (!bytes_complete_) text += fmt::format("{} {}\n", spec_.unknown.value_or(kNone), spec_.fuse_unknown);
  for (const std::string& token : spec_.tokens) text += fmt::format("{} {}\n", token.size(), token);
  for (const Merge& m : spec_.merges) text += fmt::format("{} {} {}\n", m.left, m.right, m.joined);
  for (const AddedToken& t : spec_.added)
    text += fmt::format("{} {} {} {} {}\n", t.id, t.single_word, t.lstrip, t.rstrip,
                        t.normalized && !normalizer_.empty());
  return hex(xxh3(text));
}

std::vector<int32_t> BpeTokenizer::encode_after(std::string_view before, std::string_view text) const {
  const Lease lease(*this);
  std::vector<int32_t> out;
  out.reserve(text.size() / 3);
  Before at = before.empty() ? Before::kNothing : added_raw_.ends(before) ? Before::kToken : Before::kText;
  for (const AddedStretch& stretch : added_raw_.cut(text)) {
    const std::string_view part = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (stretch.token != -1)
      out.push_back(stretch.token);
    else if (normalizer_.empty())
      encode_normalized(part, at, *lease, out);
    else
      encode_normalized(normalizer_.apply(part, at == Before::kText), at, *lease, out);
    at = Before::kToken;  // plain stretches stand between tokens
  }
  return out;
}

// A normalized stretch, in which normalized tokens are looked for.
void BpeTokenizer::encode_normalized(std::string_view text, Before at, Scratch& scratch,
                                     std::vector<int32_t>& out) const {
  for (const AddedStretch& stretch : added_normalized_.cut(text)) {
    const std::string_view part = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (stretch.token != -1)
      out.push_back(stretch.token);
    else if (pre_tokenizer_.adds())
      encode_plain(pre_tokenizer_.prepare(part, at), scratch, out);
    else
      encode_plain(part, scratch, out);
    at = Before::kToken;
  }
}

void BpeTokenizer::encode_plain(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const {
  scratch.ends.clear();
  pre_tokenizer_.split(text, scratch.ends);
  if (words_) {
    std::vector<size_t> finer;
    size_t begin = 0;
    for (const size_t end : scratch.ends) {
      words_->split(text.substr(begin, end - begin), begin, finer);
      begin = end;
    }
    scratch.ends.swap(finer);
  }
  size_t begin = 0;
  for (const size_t end : scratch.ends) {
    encode_piece(text.substr(begin, end - begin), text.size() - begin, scratch, out);
    begin = end;
  }
}

void BpeTokenizer::encode_piece(std::string_view piece, size_t readable, Scratch& scratch,
                                std::vector<int32_t>& out) const {
  if (piece.empty()) return;
  if (piece.size() > PieceCache::kLongest) {
    merge_piece(piece, scratch);
    out.insert(out.end(), scratch.symbols.begin(), scratch.symbols.end());
    return;
  }
  const PieceCache::Key key = PieceCache::key(piece, readable);
  std::span<const int32_t> ids = scratch.cache.find(key);
  if (ids.empty()) {
    merge_piece(piece, scratch);
    ids = scratch.symbols;
    scratch.cache.keep(key, ids);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

void BpeTokenizer::merge_piece(std::string_view piece, Scratch& scratch) const {
  if (spec_.ignore_merges) {
    if (const auto found = whole_.find(piece); found != whole_.end()) {
      scratch.symbols.assign(1, found->second);
      return;
    }
  }
  start_symbols(piece, scratch.symbols);
  merges_.merge(scratch.symbols, scratch.merges);
}

// One symbol a byte or character. What the vocabulary lacks falls back to bytes, else to the unknown token,
// of which a run is one with fuse_unknown, else to nothing.
void BpeTokenizer::start_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
  symbols.clear();
  int32_t waiting = kNone;  // an unknown token that may grow
  const auto known = [&](int32_t id) {
    if (waiting != kNone) symbols.push_back(waiting);
    waiting = kNone;
    symbols.push_back(id);
  };
  const auto unknown = [&] {
    if (!spec_.unknown) return;
    if (waiting != kNone && !spec_.fuse_unknown) symbols.push_back(waiting);
    waiting = *spec_.unknown;
  };
  const bool byte_level = pre_tokenizer_.byte_level();
  for (const char *at = piece.data(), *end = at + piece.size(); at < end;) {
    const size_t size = byte_level ? 1 : decode_utf8(at, end).bytes;
    const std::string_view character(at, size);
    at += size;
    if (byte_level) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(character[0])];
      id == kNone ? unknown() : known(id);
    } else if (const auto found = characters_.find(character); found != characters_.end()) {
      known(found->second);
    } else if (std::all_of(character.begin(), character.end(),
                           [&](char c) { return byte_ids_[static_cast<unsigned char>(c)] != kNone; })) {
      for (const char c : character) symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    } else {
      unknown();
    }
  }
  if (waiting != kNone) symbols.push_back(waiting);
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += bytes_[checked(id)];
  decoder_.strip(text);
  return text;
}

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeSpec spec) {
  return std::make_unique<BpeTokenizer>(std::move(spec));
}

}  // namespace retort::data
