// Where a row of tokens is cut into patches, and what a byte-patch model needs of it. Whether a patch ends
// with a token depends on that token and those before it, never on later ones:
//
//   stops     vocabularies of more than 256 tokens: with the token 256, which the text's tokenizer put there
//   no stops  with a byte that is neither ASCII letter nor digit nor UTF-8 continuation, unless the byte
//             before it is such a byte too (SpaceByte: Slagle 2024, arXiv 2404.14408, section 3)
//   longest   and with the longest-th token of a patch in any case (0: no such limit)
//
// A document's first token begins a patch; a patch that the row or its document ends before its end is none.
// Integers on the CPU, whatever the device: one copy there and back. B batch, T tokens, P patches (the most
// of any row, at least 1), S longest.
#pragma once

#include <ATen/ATen.h>

namespace retort::models {

inline constexpr int64_t kStopToken = 256;
inline constexpr double kBytesPerPatch = 5.5;  // for counting FLOPs; measured: 5.1 to 6.1 on English texts

struct PatchRule {
  int64_t longest = 0;
  bool stops = false;
  bool first = false;  // a document's first token is a patch of its own (SpaceByte's begin of sequence)
};

struct Patches {
  at::Tensor last_BP;      // place of a patch's last token: b T + t; padding: 0
  at::Tensor document_BP;  // its document; padding: -1
  at::Tensor ended_BT;     // 1 + b P + p where patch p of row b ends with this token, else 0
  at::Tensor done_BT;      // 1 + b P + p, p the last patch that this token's document has complete; 0: none
  at::Tensor slot_BT;      // which token of its patch the next one is
  at::Tensor next_BT;      // numbers the patches of the next tokens: equal for tokens of one patch
  at::Tensor tokens_BPS;   // the patches' tokens, padded with kStopToken; undefined without `longest`
};

// `document_BT`: undefined: one document a row.
Patches find_patches(const at::Tensor& tokens_BT, const at::Tensor& document_BT, const PatchRule& rule);

// Rows of x [..., D], flattened, by number: [..., D] of the shape of `rows`. With `zero` number 0 is a row of
// zeros and row i has number 1 + i. Differentiable in x, gradients summed in order.
at::Tensor take_rows(const at::Tensor& x, const at::Tensor& rows, bool zero);

}  // namespace retort::models
