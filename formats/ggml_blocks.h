// ggml's block formats: how a row of weights lies in a GGUF file. Little-endian; a row's length (in_features)
// must divide by the block. Layouts and rounding are in docs/formats.md; sources: ggml's block definitions,
// reproduced byte for byte against llama.cpp's own output (tests read quant-golden).
//
//   F32, F16, BF16    one value a block
//   Q8_0   34 bytes a 32   f16 d; i8 q[32]          x = d * q
//   Q4_0   18 bytes a 32   f16 d; u8 qs[16]         x = d * (q - 8); qs[j] = q[j] | q[j+16] << 4
//
// Codes are integers and a value is (float)code * (float)scale, one fp32 product: that is what makes an
// exported file equal, bit for bit, to the weights that were trained. Pure functions, parallel over blocks.
// Compiled with -ffp-contract=off: x * (1/d) is rounded to fp32 before anything is added.
// A non-finite value makes its block's scale, and so every value of the block, non-finite.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace retort::formats {

// Values are persistent: they stand in GGUF files.
enum class GgmlType : int32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ2_XXS = 16,
  IQ2_XS = 17,
  IQ3_XXS = 18,
  IQ1_S = 19,
  IQ4_NL = 20,
  IQ3_S = 21,
  IQ2_S = 22,
  IQ4_XS = 23,
  I8 = 24,
  I16 = 25,
  I32 = 26,
  I64 = 27,
  F64 = 28,
  IQ1_M = 29,
  BF16 = 30,
  TQ1_0 = 34,
  TQ2_0 = 35,
  MXFP4 = 39,
  NVFP4 = 40,
  Q1_0 = 41
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string name;     // "q4_0", as in --type and in recipes
  int64_t block;        // values a block
  int64_t block_bytes;  // bytes a block
  bool has_values;      // pack() and unpack() know it; otherwise only its size is known, to list a file
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(block_bytes) / static_cast<double>(block);
  }
};
const GgmlTypeInfo& ggml_type_info(GgmlType type);  // DataError for a type not in the table, by number
const GgmlTypeInfo& ggml_type_named(std::string_view name);  // ConfigError, listing those with values
std::vector<std::string> ggml_type_names();                  // those with values

// A tensor in a block format, rows contiguous. `shape` is in torch order, the last dimension is the row.
struct PackedTensor {
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
  int64_t row_bytes() const;
};

// Bytes of `shape` in `type`; DataError when the row does not divide by the block or the product overflows.
uint64_t packed_bytes(GgmlType type, std::span<const int64_t> shape);

// Integer codes with their scales, what a grid makes of a tensor: value = codes * scales[block].
struct BlockCodes {
  at::Tensor codes;   // i8, the tensor's shape; Q8_0: -127..127, Q4_0: -8..7
  at::Tensor scales;  // f32 [..., row / block], each exactly representable in f16
};
BlockCodes quantize_blocks(GgmlType type,
                           const at::Tensor& x);         // Q8_0, Q4_0: ggml's own formulas; x f32, CPU
at::Tensor dequantize_blocks(const BlockCodes& blocks);  // f32
// Throws ShapeError for codes out of the type's range or a scale that f16 cannot hold.
PackedTensor pack_blocks(GgmlType type, const BlockCodes& blocks);

PackedTensor pack(GgmlType type, const at::Tensor& x);  // any type with values; x f32, CPU
// Values of packed bytes as f32 of `shape`; checks the length first.
at::Tensor unpack(GgmlType type, std::span<const std::byte> bytes, std::span<const int64_t> shape);
inline at::Tensor unpack(const PackedTensor& t) { return unpack(t.type, t.bytes, t.shape); }

}  // namespace retort::formats
