// Blocks of whole rows: the pieces in which a parameter is owned, measured, updated and saved
// (models/placement.h). A row runs along all dimensions but the first.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

namespace retort::kernels {

// Rows [begin, end) of a tensor.
struct RowBlock {
  int64_t begin = 0, end = 0;
  bool operator==(const RowBlock&) const = default;
};

// Rows [begin, end) in blocks of `step`, the last of which may be shorter.
struct RowBlocks {
  int64_t begin = 0, end = 0, step = 1;

  int64_t count() const { return (end - begin + step - 1) / step; }
  RowBlock operator[](int64_t i) const { return {begin + i * step, std::min(begin + (i + 1) * step, end)}; }
  bool operator==(const RowBlocks&) const = default;
};

// A block as elements of a contiguous tensor: `count` from `first` on.
struct Run {
  int64_t first, count;
};
inline Run elements_of(const at::Tensor& tensor, RowBlock block) {
  const int64_t row = tensor.numel() / std::max<int64_t>(1, tensor.size(0));
  return {block.begin * row, (block.end - block.begin) * row};
}

}  // namespace retort::kernels
