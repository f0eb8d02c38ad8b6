// The distribution of a text's next byte, out of a distribution of its next token. u: the bytes of the token
// that are known already, b: a byte.
//
//   P(b | u) = mass of the tokens that begin with u b / mass of the tokens that begin with u and are longer
//
// Exact given where the token begins and that it is not over; special tokens have no share.
// docs/distillation.md, "A byte-level student of a BPE teacher", says what it means. After Vieira et al. 2024
// (arXiv 2412.03719) and BLD (arXiv 2604.07466). Immutable, so any thread may use it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace retort::distill {

inline constexpr int64_t kByteValues = 256;
// Of a byte that no token brings: finite, and nothing in a sum of f32.
inline constexpr float kNoByte = -40.0f;

class NextByte {
 public:
  // DataError for a vocabulary in which no token writes text.
  explicit NextByte(const data::Tokenizer& tokenizer);
  // Writes log P(b | u) to the 256 of `out`. At least one token begins with u and is longer. `logits`: of the
  // tokenizer's ids; more are not read.
  void log_probabilities(std::span<const float> logits, std::string_view u, std::span<float> out) const;

 private:
  struct Token {
    std::string_view bytes;
    int32_t id;
  };
  std::span<const Token> range(std::string_view u) const;

  std::string text_;           // the bytes of all tokens
  std::vector<Token> tokens_;  // in byte order
};

}  // namespace retort::distill
