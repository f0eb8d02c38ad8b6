// ggml's block formats: how a row of weights lies in a GGUF file. Little-endian; a row's length (in_features)
// must divide by the block. Layouts and rounding are in docs/formats.md; sources: ggml's block definitions,
// reproduced byte for byte against llama.cpp's own output (tests read quant-golden).
//
//   one value a block    f32 f16 bf16
//   32    q8_0 q4_0 q4_1 q5_0 q5_1 mxfp4; read only: iq4_nl
//   256   q4_k q5_k q6_k tq1_0 tq2_0; q2_k and q3_k are read, and written from a grid's codes only
//   64    read only: nvfp4
//
// A quantized block is codes and scales (block_codes.h): what an export packs are the codes of the weights
// that were trained. Pure functions, parallel over blocks. Compiled with -ffp-contract=off: x * (1/d) is
// rounded to fp32 before anything is added. A non-finite value makes every value of its block non-finite.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/block_codes.h"

namespace retort::formats {

// Values are persistent: GGUF files hold them.
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
  std::string name;         // "q4_0", as in --type and in recipes
  int64_t block;            // values a block
  int64_t block_bytes;      // bytes a block
  bool has_values = false;  // unpack() knows it; otherwise only its size is known, to list a file
  bool is_written = false;  // pack() knows it
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(block_bytes) / static_cast<double>(block);
  }
};
const GgmlTypeInfo& ggml_type_info(GgmlType type);  // DataError for a type not in the table, by number
const GgmlTypeInfo& ggml_type_named(std::string_view name);  // ConfigError, listing those that are written
std::vector<std::string> ggml_type_names();                  // those with values
std::vector<std::string> written_ggml_types();               // those that pack() knows

// A tensor in a block format, rows contiguous. `shape` is in torch order, the last dimension is the row.
struct PackedTensor {
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
  int64_t row_bytes() const;
};

// Bytes of `shape` in `type`; DataError when the row does not divide by the block or the product overflows.
uint64_t packed_bytes(GgmlType type, std::span<const int64_t> shape);

// ggml's own formulas, for q8_0 q4_0 q5_0 q4_k q5_k q6_k tq1_0 tq2_0 mxfp4. x f32 [.., row], CPU. importance:
// undefined, or f32 [row] > 0, how much a column's error weighs; the searches of K-quants heed it.
kernels::BlockScales fit_blocks(GgmlType type, const at::Tensor& x, const at::Tensor& importance = {});
kernels::BlockCodes quantize_blocks(GgmlType type, const at::Tensor& x, const at::Tensor& importance = {});
kernels::Rounding block_rounding(GgmlType type);  // how codes are found, and their range
// Codes of a type's range with scales that it can hold: finite, and f16 numbers or powers of two, or with the
// header that fit_blocks() made of them. Scales of larger groups are repeated (a row's, in every block of
// it). Throws ShapeError for others.
PackedTensor pack_blocks(GgmlType type, const kernels::BlockCodes& blocks);

// Quantizes and packs: a type that is written; x f32, CPU.
PackedTensor pack(GgmlType type, const at::Tensor& x);
// Values of packed bytes as f32 of `shape`; checks the length first.
at::Tensor unpack(GgmlType type, std::span<const std::byte> bytes, std::span<const int64_t> shape);
inline at::Tensor unpack(const PackedTensor& t) { return unpack(t.type, t.bytes, t.shape); }

}  // namespace retort::formats
