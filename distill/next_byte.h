// The distribution of a text's next byte out of a distribution of its next token. u: the bytes of the token
// that are known already, b: a byte.
//
//   P(b | u) = mass of the tokens that begin with u b / mass of the tokens that begin with u and are longer
//
// Over the bytes of one token these multiply to p(token) / the chances, at each byte, that the token had not
// ended before it: exact given where the token begins and that it goes on. Where a text's tokens begin is its
// tokenizer's doing and part of the sample, as the label is; the student that minimises forward KL over such
// samples is the mixture over segmentations, the distribution of bytes.
//
// Special tokens and those that write no byte have no share: the text goes on. Masses are sums over ranges of
// the vocabulary in byte order, relative to the range's greatest, in f64: no difference of large numbers is
// taken, so a ratio keeps its digits however unlikely u is. A byte that no token brings has log-probability
// kNoByte. After Vieira et al. 2024 (arXiv 2412.03719) and BLD (arXiv 2604.07466). Immutable, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace retort::distill {

inline constexpr int64_t kByteValues = 256;
inline constexpr float kNoByte = -40.0f;  // 4e-18: finite, and nothing in any sum of f32

class NextByte {
 public:
  // DataError for a vocabulary without text.
  explicit NextByte(const data::Tokenizer& tokenizer);
  // log P(b | u) into out[256]; some token begins with u and is longer. `logits`: of the tokenizer's ids,
  // more are not read.
  void log_probabilities(std::span<const float> logits, std::string_view u, float* out) const;

 private:
  struct Token {
    std::string_view bytes;
    int32_t id;
  };
  std::span<const Token> range(std::string_view u) const;

  std::string text_;           // all tokens' bytes
  std::vector<Token> tokens_;  // in byte order
};

}  // namespace retort::distill
