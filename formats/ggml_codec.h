// What a block format is made of: a row of the table in ggml_blocks.cpp. Each family of types has a file with
// its codecs. A codec works on whole blocks of consecutive values; rows are whole blocks, so a tensor is one
// run of them. Single-threaded functions on raw memory, which callers have checked.
#pragma once

#include <c10/util/Half.h>

#include <bit>
#include <cstring>
#include <limits>

#include "formats/ggml_blocks.h"
#include "kernels/rounding.h"

namespace retort::formats {

// Where a fit leaves the scales of a run of blocks; null where the type has none of the kind.
struct ScaleRun {
  float *scale, *offset, *divisor;  // one a group
  std::byte* header;                // CodeFormat::header bytes a block
};

// Of the types whose codes a grid may have.
struct CodeFormat {
  kernels::Rounding rounding;
  int64_t group = 0;      // values that share a scale
  bool offsets = false;   // groups have an offset
  bool divisors = false;  // codes are found with a finer scale than the file's
  int64_t header = 0;     // bytes a block of scales that are no plain f16; they go into BlockScales::header
  bool power_of_two = false;  // scales are powers of two; else f16 numbers
  // ggml's own scales of `blocks` blocks. importance: null, or the weight of each value of them. Null: scales
  // come from a grid only.
  void (*fit)(const float* x, const float* importance, const ScaleRun& out, int64_t blocks) = nullptr;
  void (*join)(const int8_t* codes, const float* scale, const std::byte* header, std::byte* out,
               int64_t blocks) = nullptr;
};

struct Codec {
  GgmlTypeInfo info;
  void (*decode)(const std::byte* in, float* x, int64_t blocks) = nullptr;   // null: only the size is known
  void (*encode)(const float* x, std::byte* out, int64_t blocks) = nullptr;  // or through `codes`
  CodeFormat codes = {};
};

std::vector<Codec> scalar_codecs();   // ggml_scalars.cpp: f32 f16 bf16
std::vector<Codec> block32_codecs();  // ggml_block32.cpp: q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl
std::vector<Codec> k_codecs();        // ggml_k_quants.cpp: q2_k .. q6_k
std::vector<Codec> ternary_codecs();  // ggml_ternary.cpp: tq1_0 tq2_0
std::vector<Codec> float4_codecs();   // ggml_float4.cpp: mxfp4 nvfp4

// ggml_k_search.cpp: the scales of Q4_K, Q5_K and Q6_K.
void fit_q4_k(const float* x, const float* importance, const ScaleRun& out, int64_t blocks);
void fit_q5_k(const float* x, const float* importance, const ScaleRun& out, int64_t blocks);
void fit_q6_k(const float* x, const float* importance, const ScaleRun& out, int64_t blocks);
// The 6-bit scale and minimum of sub-block j < 8 in the 12 bytes of Q4_K and Q5_K, and the bytes of all.
struct ScaleAndMinimum {
  uint8_t scale, minimum;
};
ScaleAndMinimum six_bits(const uint8_t* bytes, int j);
void store_six_bits(const ScaleAndMinimum* pairs, uint8_t* bytes);

// The f16 number nearest to x, halves to even, as f32; without branches, so that loops of it vectorise.
// Adding the power of two whose last bit is f16's last rounds to it; below 2^-14 that bit is 2^-24.
inline float as_half(float x) {
  const auto bits = std::bit_cast<uint32_t>(x), sign = bits & 0x80000000;
  const auto size = std::bit_cast<float>(bits ^ sign);
  const uint32_t exponent = bits & 0x7f800000, least = (127 - 14) << 23;
  const auto power = std::bit_cast<float>((exponent > least ? exponent : least) + (13 << 23));
  const float near = size >= 65520.0f ? std::numeric_limits<float>::infinity() : (size + power) - power;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(near) | sign);
}
inline float load_half(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}
inline void store_half(std::byte* at, float x) {
  const uint16_t bits = c10::Half(x).x;
  std::memcpy(at, &bits, sizeof bits);
}

// As integers, positive floats order as they do, and an integer maximum vectorises where a float one may not.
inline float largest_magnitude(const float* x, int64_t count) {
  int32_t peak = 0;
  for (int64_t j = 0; j < count; ++j) peak = std::max(peak, std::bit_cast<int32_t>(x[j]) & INT32_MAX);
  return std::bit_cast<float>(peak);
}

}  // namespace retort::formats
