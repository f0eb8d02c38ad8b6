#include "data/pieces.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/digest.h"
#include "core/error.h"
#include "data/byte_source.h"
#include "data/tokenizers/utf8.h"

namespace retort::data {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// The first byte at or before `at` that does not continue a UTF-8 character; `at` itself in other encodings.
size_t character_start(std::string_view text, size_t at) {
  for (size_t back = 0; back < 4 && back <= at; ++back)
    if ((static_cast<unsigned char>(text[at - back]) & 0xC0) != 0x80) return at - back;
  return at;
}

// The end of the first piece: the last line of it that another follows, without white space at its
// start if there is one, since tokens may run over white space.
size_t piece_end(std::string_view text) {
  if (text.size() <= kPiece) return text.size();
  size_t line = std::string_view::npos;
  for (size_t at = text.rfind('\n', kPiece - 1); at != std::string_view::npos && at > 0;
       at = text.rfind('\n', at - 1)) {
    if (line == std::string_view::npos) line = at;
    if (!is_space(text[at + 1])) return at + 1;
    if (at < kPiece / 2) break;  // so much white space: it is cut
  }
  if (line != std::string_view::npos) return line + 1;
  const size_t start = character_start(text, kPiece);
  return start > 0 ? start : kPiece;
}

uint64_t unpacked_size(const Path& path) {
  const auto source = open_bytes(path);
  std::string window(kPiece, '\0');
  uint64_t size = 0;
  for (size_t got = 1; got > 0; size += got) got = source->read(window);
  check<DataError>(size > 0, "{}: text must hold at least one byte, got an empty file", path.string());
  return size;
}

// A range of a text file, one document.
class TextPieces final : public PieceReader {
 public:
  TextPieces(const Path& path, const DocumentOptions& options, double validation, Part part)
      : rule_(options.invalid_utf8), path_(path.string()), source_(open_bytes(path)) {
    const uint64_t size = unpacked_size(path), split = split_point(path, size, validation);
    at_ = part == Part::kTrain ? 0 : split;
    left_ = part == Part::kTrain ? split : size - split;
    std::string window(kPiece, '\0');
    for (uint64_t skip = at_; skip > 0;) {
      const size_t got =
          source_->read({window.data(), static_cast<size_t>(std::min<uint64_t>(skip, kPiece))});
      check<DataError>(got > 0, "{}: became shorter while it was read", path_);
      skip -= got;
    }
  }

  bool next(Piece& piece) override {
    fill();
    if (buffer_.empty()) return false;
    const size_t end = piece_end(buffer_);
    piece = {.text = buffer_.substr(0, end),
             .continues = begun_,
             .where = fmt::format("{} from byte {}", path_, at_)};
    buffer_.erase(0, end);
    check_utf8(piece.text, rule_, piece.where);
    at_ += end;
    piece.ends = buffer_.empty() && left_ == 0;
    begun_ = true;
    return true;
  }
  uint64_t consumed() const override { return source_->consumed(); }

 private:
  void fill() {  // more than a piece, unless the text ends before
    while (left_ > 0 && buffer_.size() <= kPiece) {
      const size_t held = buffer_.size();
      buffer_.resize(held + static_cast<size_t>(std::min<uint64_t>(left_, kPiece)));
      const size_t got = source_->read(std::span(buffer_).subspan(held));
      check<DataError>(got > 0, "{}: became shorter while it was read", path_);
      buffer_.resize(held + got);
      left_ -= got;
    }
  }

  std::string rule_, path_, buffer_;
  std::unique_ptr<ByteSource> source_;
  uint64_t at_ = 0, left_ = 0;  // of the unpacked text: where the buffer begins, what follows it
  bool begun_ = false;
};

// The documents of a part.
class DocumentPieces final : public PieceReader {
 public:
  DocumentPieces(const Path& path, const DocumentOptions& options, double validation, Part part,
                 std::shared_ptr<const ConversationForm> form)
      : documents_(open_documents(path, options, std::move(form))),
        preferences_(options.kind() != ShardKind::kText),
        validation_(validation),
        part_(part) {}

  bool next(Piece& piece) override {
    while (at_ == document_.spans.size()) {
      if (!documents_->next(document_)) return false;
      at_ = 0;
      begun_ = false;
      if (part_of(document_) != part_) document_.spans.clear();
    }
    Span& span = document_.spans[at_];
    const bool pair = document_.second > 0, second = pair && at_ >= document_.second;
    const size_t end = piece_end(span.text);
    const bool whole = end == span.text.size();
    piece = {.text = whole ? std::move(span.text) : span.text.substr(0, end),
             .continues = begun_,
             .ends = whole && (at_ + 1 == document_.spans.size() || (pair && at_ + 1 == document_.second)),
             .learned = !span.learned             ? kRead
                        : second || document_.bad ? kLearnedAsWorse
                                                  : kLearned,
             .answer = preferences_,
             .where = document_.where};
    if (whole)
      ++at_;
    else
      span.text.erase(0, end);
    begun_ = !(whole && pair && at_ == document_.second);
    return true;
  }
  uint64_t consumed() const override { return documents_->consumed(); }
  LeftOut left_out() const override { return documents_->left_out(); }

 private:
  Part part_of(const Document& document) const {
    Digest digest;
    for (const Span& span : document.spans) digest.add(as_bytes(span.text));
    const double place = std::ldexp(static_cast<double>(digest.value() >> 11), -53);  // [0, 1)
    return place < validation_ ? Part::kValidation : Part::kTrain;
  }

  std::unique_ptr<DocumentReader> documents_;
  bool preferences_;
  double validation_;
  Part part_;
  Document document_;
  size_t at_ = 0;
  bool begun_ = false;
};

}  // namespace

uint64_t split_point(const Path& path, uint64_t size, double validation) {
  const auto share = static_cast<uint64_t>(std::llround(static_cast<double>(size) * validation));
  if (share == 0) return size;
  const uint64_t target = size - share;
  if (target == 0) return 0;
  const uint64_t mark = target - 1;  // a break here: a line begins with the share
  const auto source = open_bytes(path);
  std::string window(kPiece, '\0'), around;  // the bytes up to the one at `target`, four at most
  uint64_t before = 0;                       // where the last line that begins before it does; 0: none
  for (uint64_t at = 0; at < size;) {
    const std::string_view text(window.data(), source->read(window));
    check<DataError>(!text.empty(), "{}: became shorter while it was read", path.string());
    const auto place = [&](uint64_t p) {
      return static_cast<size_t>(std::clamp(p, at, at + text.size()) - at);
    };
    if (const size_t found = text.find('\n', place(mark)); found != text.npos && at + found + 1 < size)
      return at + found + 1;
    if (const size_t found = text.substr(0, place(mark)).rfind('\n'); found != text.npos)
      before = at + found + 1;
    around += text.substr(place(target - std::min<uint64_t>(target, 3)),
                          place(target + 1) - place(target - std::min<uint64_t>(target, 3)));
    at += text.size();
  }
  if (before > 0) return before;
  return target - (around.size() - 1 - character_start(around, around.size() - 1));
}

std::unique_ptr<PieceReader> open_pieces(const Path& path, const DocumentOptions& options, double validation,
                                         Part part, std::shared_ptr<const ConversationForm> form) {
  if (format_of(path, options) == "text" && options.split.empty() && !options.conversations())
    return std::make_unique<TextPieces>(path, options, validation, part);
  return std::make_unique<DocumentPieces>(path, options, validation, part, std::move(form));
}

}  // namespace retort::data
