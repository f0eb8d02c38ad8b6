#include "data/tokenizers/sentencepiece.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/token_decoder.h"
#include "data/tokenizers/tokenizer_json.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::Json;

constexpr const char* kMark = "\xE2\x96\x81";

// One message of a protobuf: its fields in turn. Wire types: 0 varint, 1 and 5 fixed, 2 length and bytes.
class Message {
 public:
  Message(std::string_view bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  bool next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    wire_ = static_cast<int>(key & 7);
    switch (wire_) {
      case 0:
        value_ = varint();
        break;
      case 1:
      case 5:
        content_ = take(wire_ == 1 ? 8 : 4);
        break;
      case 2:
        content_ = take(varint());
        break;
      default:
        fail<DataError>("{}: not a SentencePiece model: field {} has wire type {}", source_, field_, wire_);
    }
    return true;
  }
  uint64_t field() const { return field_; }
  int64_t integer() const {
    need(0);
    return static_cast<int64_t>(value_);
  }
  std::string_view bytes() const {
    need(2);
    return content_;
  }
  float real() const {
    need(5);
    uint32_t bits = 0;
    std::memcpy(&bits, content_.data(), sizeof bits);
    return std::bit_cast<float>(bits);
  }

 private:
  void need(int wire) const {
    check<DataError>(wire_ == wire, "{}: field {} must have wire type {}, got {}", source_, field_, wire,
                     wire_);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail<DataError>("{}: not a SentencePiece model: a number at byte {} has no end", source_, at_);
  }
  std::string_view take(uint64_t size) {
    check<DataError>(size <= bytes_.size() - at_,
                     "{}: not a whole SentencePiece model: {} bytes are needed at byte {}, {} are left",
                     source_, size, at_, bytes_.size() - at_);
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }

  std::string_view bytes_, content_;
  const std::string& source_;
  size_t at_ = 0;
  uint64_t field_ = 0, value_ = 0;
  int wire_ = 0;
};

PieceType piece_type(int64_t type, const std::string& source) {
  check<DataError>(type >= 1 && type <= 6, "{}: a piece's type must lie in 1 .. 6, got {}", source, type);
  return static_cast<PieceType>(type);
}

void read_piece(SentencePieces& out, std::string_view bytes) {
  std::string text;
  float score = 0;
  auto type = PieceType::kNormal;
  for (Message piece(bytes, out.name); piece.next();) {
    if (piece.field() == 1) text = piece.bytes();
    if (piece.field() == 2) score = piece.real();
    if (piece.field() == 3) type = piece_type(piece.integer(), out.name);
  }
  if (type == PieceType::kUserDefined) text = replaced(text, kMark, " ");
  out.texts.push_back(std::move(text));
  out.scores.push_back(score);
  out.types.push_back(type);
}

void read_trainer(SentencePieces& out, std::string_view bytes) {
  static constexpr const char* kModels[] = {"", "Unigram", "BPE", "word", "char"};
  int64_t model = 1;
  const auto id = [&](int64_t value) {  // 32 bits in the file's language
    const auto narrow = static_cast<int32_t>(value);
    return narrow < 0 ? std::nullopt : std::optional(narrow);
  };
  out.begin = 1, out.end = 2;
  for (Message spec(bytes, out.name); spec.next();) {
    if (spec.field() == 3) model = spec.integer();
    if (spec.field() == 41) out.begin = id(spec.integer());
    if (spec.field() == 42) out.end = id(spec.integer());
    if (spec.field() == 43) out.pad = id(spec.integer());
  }
  check<DataError>(model == 2,
                   "{}: a SentencePiece model must be of type BPE, got {}, which is not supported", out.name,
                   model >= 1 && model <= 4 ? kModels[model] : fmt::format("type {}", model));
}

void read_normalizer(SentencePieces& out, std::string_view bytes) {
  bool collapses = true, escapes = true, maps = false;
  for (Message spec(bytes, out.name); spec.next();) {
    if (spec.field() == 2) maps = !spec.bytes().empty();  // the compiled character map
    if (spec.field() == 3) out.add_space_prefix = spec.integer() != 0;
    if (spec.field() == 4) collapses = spec.integer() != 0;
    if (spec.field() == 5) escapes = spec.integer() != 0;
  }
  check<DataError>(!maps, "{}: a normalization of characters is not supported; only identity is", out.name);
  check<DataError>(!collapses, "{}: remove_extra_whitespaces is not supported", out.name);
  check<DataError>(escapes, "{}: a model without escape_whitespaces is not supported", out.name);
}

Json replace(const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

// Adds the pieces that stand outside the merging. User-defined ones with spaces are written with "▁" and
// looked for where the text is, unless another piece is written so: whether there are any.
bool add_tokens(BpeSpec& spec, SentencePieces& pieces) {
  const std::vector<std::string> texts = pieces.texts;
  const TokenIndex index(texts);
  bool spaces = false;
  for (size_t i = 0; i < texts.size(); ++i) {
    const PieceType type = pieces.types[i];
    if (type == PieceType::kUnknown) spec.unknown = static_cast<int32_t>(i);
    spec.byte_fallback |= type == PieceType::kByte;
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown;
    if (!special && type != PieceType::kUserDefined) continue;
    std::string marked = special ? texts[i] : replaced(texts[i], " ", kMark);
    const bool normalized = marked != texts[i] && !index.find(marked);
    if (normalized) pieces.texts[i] = std::move(marked);
    spaces |= normalized;
    spec.added.push_back({.id = static_cast<int32_t>(i),
                          .text = pieces.texts[i],
                          .special = special,
                          .normalized = normalized});
  }
  return spaces;
}

}  // namespace

SentencePieces read_sentencepiece(const Path& path) {
  const auto file = MappedFile::open(path);
  SentencePieces out;
  out.name = path.string();
  bool trainer = false;
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  for (Message model(bytes, out.name); model.next();) {
    if (model.field() == 1) read_piece(out, model.bytes());
    if (model.field() == 2) read_trainer(out, model.bytes()), trainer = true;
    if (model.field() == 3) read_normalizer(out, model.bytes());
  }
  check<DataError>(trainer && !out.texts.empty(),
                   "{}: a SentencePiece model must have pieces and a trainer_spec", out.name);
  return out;
}

BpeSpec spec_of(SentencePieces pieces) {
  BpeSpec spec;
  spec.name = pieces.name;
  spec.fuse_unknown = true;
  const bool spaces = add_tokens(spec, pieces);
  for (size_t i = 0; i < pieces.scores.size(); ++i)
    check<DataError>(std::isfinite(pieces.scores[i]), "{}: the score of piece {} must be finite, got {}",
                     spec.name, i, pieces.scores[i]);
  std::vector<std::string> mergeable = pieces.texts;
  for (size_t i = 0; i < mergeable.size(); ++i)
    if (pieces.types[i] != PieceType::kNormal) mergeable[i].clear();
  spec.merges = merges_of_scores(mergeable, pieces.scores);
  spec.tokens = std::move(pieces.texts);
  spec.scores = std::move(pieces.scores);
  spec.begin = pieces.begin, spec.end = pieces.end, spec.pad = pieces.pad;

  Json normalizers = Json::array(), decoders = Json::array({replace(kMark, " ")});
  // Prepend would change what is looked for too.
  if (pieces.add_space_prefix && spaces)
    spec.pre_tokenizer = {
        {"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", "first"}, {"split", false}};
  else if (pieces.add_space_prefix)
    normalizers.push_back({{"type", "Prepend"}, {"prepend", kMark}});
  normalizers.push_back(replace(" ", kMark));
  spec.normalizer = {{"type", "Sequence"}, {"normalizers", normalizers}};
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (pieces.add_space_prefix)
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  spec.decoder = {{"type", "Sequence"}, {"decoders", decoders}};
  validate(spec);
  TextFrame frame;
  if (pieces.add_begin && spec.begin) frame.before.push_back(*spec.begin);
  if (pieces.add_end && spec.end) frame.after.push_back(*spec.end);
  spec.post_processor = template_of(spec, frame);
  return spec;
}

}  // namespace retort::data
