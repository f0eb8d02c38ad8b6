// One part (training or validation) of a file, in the pieces that a tokenizer gets: at most about 1 MiB each,
// cut where a line begins, so that neither memory nor a thread's work grows with a document. The split needs
// no seed, and neither the order of files nor another file moves it:
//   text without marks   one document to each part: the last share of the file's bytes, from the start of a
//   line documents            a document's digest decides, so that equal documents are never in both parts
// One thread. Throws as data/documents.h does; DataError for a file without a byte.
#pragma once

#include <memory>
#include <string>

#include "data/documents.h"

namespace retort::data {

struct Piece {
  std::string text;            // not empty
  bool continues = false;      // the document of the piece before
  bool ends = false;           // its document
  uint8_t learned = kLearned;  // as token_shards.h has it
  bool answer = false;         // of preferences: the document needs no other end than its own
  std::string where = {};      // for messages: a file, or its record
};

class PieceReader {
 public:
  virtual ~PieceReader() = default;
  virtual bool next(Piece& piece) = 0;    // false at the end
  virtual uint64_t consumed() const = 0;  // bytes of the file taken so far
  virtual LeftOut left_out() const { return {}; }
};

enum class Part { kTrain, kValidation };
std::unique_ptr<PieceReader> open_pieces(const Path& path, const DocumentOptions& options, double validation,
                                         Part part, std::shared_ptr<const ConversationForm> form = nullptr);

// Where a text of `size` bytes is cut for a share: the first line that begins in it, else the line that runs
// into it, else (no line break at all) the share's first character.
uint64_t split_point(const Path& path, uint64_t size, double validation);

}  // namespace retort::data
