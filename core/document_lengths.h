// Documents that lie side by side in the rows of a batch, as attention on a device asks for them: a document is a run of
// equal numbers in its row, and the rows follow one another. M documents.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace retort {

struct DocumentLengths {
  at::Tensor cumulative = {};  // i32 [M + 1]: tokens before each document, and after the last
  int64_t longest = 0;         // tokens of the longest
};

// Of numbers i64 [B, T] on the host. Throws ShapeError.
DocumentLengths document_lengths(const at::Tensor& document_BT);

}  // namespace retort
