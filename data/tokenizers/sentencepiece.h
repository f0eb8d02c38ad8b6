// SentencePiece's .model, read by hand: a protobuf of
//   1 repeated piece {1 text, 2 score f32, 3 type}    type: 1 normal (default), 2 unknown, 3 control,
//                                                     4 user-defined, 5 unused, 6 byte
//   2 trainer_spec {3 model_type (2 is BPE), 40 .. 43 id of unk, bos, eos, pad (-1: none)}
//   3 normalizer_spec {1 name, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces}
// A model of type BPE only: Unigram, word and char are refused by name, and so are normalizations that change
// characters (anything but identity). Throws DataError naming file, field and rule.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/tokenizers/bpe_spec.h"

namespace retort::data {

enum class PieceType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

// What a .model and a GGUF of that kind both say. Texts of user-defined pieces have spaces, others U+2581.
struct SentencePieces {
  std::string name;
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<PieceType> types;
  std::optional<int32_t> begin, end, pad;
  bool add_space_prefix = true, add_begin = true, add_end = false;
};

SentencePieces read_sentencepiece(const Path& path);
// As transformers converts them: U+2581 for spaces, merges from scores, bytes to fall back on.
BpeSpec spec_of(SentencePieces pieces);

}  // namespace retort::data
