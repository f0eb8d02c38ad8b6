// Small unsigned codes in 32-bit words, as compressed-tensors and GPTQ files keep integer weights: code i of
// a row sits in word i bits / 32 at bit (i bits) % 32, the first lowest. `bits` divides 32; a row's last word
// is filled up with zeros. Pure functions on CPU tensors. Throws ShapeError; unpack_words DataError for words
// too few.
#pragma once

#include <ATen/ATen.h>

namespace retort::formats {

at::Tensor pack_words(const at::Tensor& codes_RN, int64_t bits);  // i32 in 0 .. 2^bits - 1 -> i32 words
at::Tensor unpack_words(const at::Tensor& words_RM, int64_t bits, int64_t count);  // -> i32 [R, count]

}  // namespace retort::formats
