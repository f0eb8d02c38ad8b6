// Models in other people's files. A family lists where each of our parameters is there (ForeignTensor); one
// loader serves every container that can name tensors, tell their shapes and give their values (ForeignFile).
// Everything is checked before anything is allocated: missing, extra and misshapen tensors are named
// (DataError).
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/stored_tensors.h"
#include "models/decoder.h"

namespace retort::models {

// One parameter's name and form in a foreign file.
struct ForeignTensor {
  std::string parameter;    // ours, aliases included: "layers.3.attn.q.weight"
  std::string name;         // theirs
  bool transposed = false;  // stored [in, out] (GPT-2's Conv1D in HF)
  int64_t rope_heads = 0;   // > 0: rows in interleaved rotary order, this many heads (GGUF's llama q and k)
  // A slice of a fused tensor: rows [row_begin, row_begin + rows) of `name`; rows = 0: all of it. The slices
  // of one tensor are side by side in a family's list, in row order.
  int64_t row_begin = 0, rows = 0;
  double offset = 0.0;  // stored with this added (GGUF's norms that multiply by 1 + w)
};

using ForeignFile = formats::StoredTensors;  // values of any floating dtype

using ForeignTensors = std::function<std::vector<ForeignTensor>(const DecoderSpec&)>;

// A Decoder of `spec` (as read from the file, not yet validated) with its masters set from the file. An alias
// (a tied head, a shared layer) may be absent; a present one must be equal.
std::unique_ptr<Decoder> load_foreign(const DecoderSpec& spec, const ForeignTensors& list,
                                      const ForeignFile& file);

// spec.validate(), as a DataError: the file's mistake, not the recipe's.
void check_foreign_spec(const DecoderSpec& spec, const std::string& where);

// Which of our rows, per head half-split for rotary positions, is at each row of the interleaved order: pairs
// (i, i + K/2) go to (2i, 2i + 1). theirs = ours[order]; ours[order] = theirs. i64 [rows].
at::Tensor interleaved_order(int64_t rows, int64_t heads);

}  // namespace retort::models
