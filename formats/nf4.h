// NF4 with double quantization (Dettmers et al. 2023, arXiv 2305.14314), bit for bit as bitsandbytes makes
// it: the values of a tensor in blocks of 64, whatever its rows, each a code of 4 bits times the block's
// largest size.
//
//   value = map[code] * size;   size = byte_map[c] * group + offset, c a byte, a group of 256 blocks
//
// Codes are found with the exact sizes; of two that are equally near the lower one. The first of a pair is
// in a byte's high half. 4.127 bits a value. Pure functions of dense f32 CPU tensors; the same bits on any
// number of threads.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace retort::formats {

struct Nf4Tensor {
  std::vector<int64_t> shape;
  at::Tensor codes;   // u8, two a byte; the last block is filled up
  at::Tensor sizes;   // u8, one a block
  at::Tensor groups;  // f32, one for 256 blocks
  float offset = 0;
  uint64_t bytes() const {
    return static_cast<uint64_t>(codes.numel() + sizes.numel() + 4 * groups.numel() + 4);
  }
};

Nf4Tensor pack_nf4(const at::Tensor& x);
at::Tensor unpack_nf4(const Nf4Tensor& packed);

at::Tensor nf4_map();   // f32 [16]
at::Tensor byte_map();  // f32 [256], sorted: finer towards 0

}  // namespace retort::formats
