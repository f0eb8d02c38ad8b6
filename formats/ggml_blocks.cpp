// Legend: a codec works on `blocks` whole blocks of consecutive values; rows are whole blocks, so a tensor is
// one run of them. Loops are plain and branch-free: the compiler vectorises them once per target below.
#include "formats/ggml_blocks.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/ranges.h>

#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "formats/untrusted.h"

// One copy a machine, chosen at load time. The sanitizers' runtimes are not up yet when a choice is made.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RETORT_EACH_TARGET
#else
#define RETORT_EACH_TARGET __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

namespace retort::formats {
namespace {

constexpr int kBlock = 32;  // values a block of Q8_0 and Q4_0
constexpr int64_t kQ8Bytes = 34, kQ4Bytes = 18;

// As integers, positive floats order as they do, and an integer maximum vectorises where a float one may not.
inline int32_t bits_of(float x) { return std::bit_cast<int32_t>(x); }

inline float largest_magnitude(const float* x) {
  int32_t peak = 0;
  for (int j = 0; j < kBlock; ++j) peak = std::max(peak, bits_of(x[j]) & INT32_MAX);
  return std::bit_cast<float>(peak);
}

// The signed value of the largest magnitude, the first of equals; +0 for a block of zeros.
inline float extreme_value(const float* x) {
  int32_t above = 0, below = 0;
  for (int j = 0; j < kBlock; ++j) {
    above = std::max(above, bits_of(x[j]));
    below = std::max(below, bits_of(-x[j]));
  }
  if (above == below) [[unlikely]]
    for (int j = 0; j < kBlock && above != 0; ++j)
      if ((bits_of(x[j]) & INT32_MAX) == above) return x[j];
  return above >= below ? std::bit_cast<float>(above) : -std::bit_cast<float>(below);
}

// Also sends NaN to `high`: a conversion to an integer of anything outside its range is undefined.
inline float clamped(float x, float low, float high) {
  const float below = x < high ? x : high;
  return below > low ? below : low;
}

inline float inverse_scale(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }
inline float as_half(float x) { return static_cast<float>(c10::Half(x)); }

inline float load_half(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}
inline void store_half(std::byte* at, float x) {
  const uint16_t bits = c10::Half(x).x;
  std::memcpy(at, &bits, sizeof bits);
}

// --- Q8_0

RETORT_EACH_TARGET
void quantize_q8_0(const float* __restrict x, int8_t* __restrict codes, float* __restrict scales,
                   int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock, codes += kBlock) {
    const float d = largest_magnitude(x) / 127.0f;
    const float inverse = inverse_scale(d);
    for (int j = 0; j < kBlock; ++j) {  // roundf: half away from zero; the rest is exact
      const float v = clamped(x[j] * inverse, -127.0f, 127.0f);
      const auto whole = static_cast<int32_t>(v);
      const float rest = v - static_cast<float>(whole);
      codes[j] = static_cast<int8_t>(whole + static_cast<int32_t>(rest >= 0.5f) -
                                     static_cast<int32_t>(rest <= -0.5f));
    }
    scales[b] = as_half(d);
  }
}

void join_q8_0(const int8_t* codes, const float* scales, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ8Bytes) {
    store_half(out, scales[b]);
    std::memcpy(out + 2, codes + b * kBlock, kBlock);
  }
}

RETORT_EACH_TARGET
void decode_q8_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ8Bytes, x += kBlock) {
    const float d = load_half(in);
    const auto* codes = reinterpret_cast<const int8_t*>(in + 2);
    for (int j = 0; j < kBlock; ++j) x[j] = d * static_cast<float>(codes[j]);
  }
}

// --- Q4_0

RETORT_EACH_TARGET
void quantize_q4_0(const float* __restrict x, int8_t* __restrict codes, float* __restrict scales,
                   int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock, codes += kBlock) {
    const float d = extreme_value(x) / -8.0f;  // zeros: +0 / -8 = -0.0
    const float inverse = inverse_scale(d);
    for (int j = 0; j < kBlock; ++j) {
      const float v = clamped(x[j] * inverse + 8.5f, 0.0f, 15.0f);
      codes[j] = static_cast<int8_t>(static_cast<int32_t>(v) - 8);
    }
    scales[b] = as_half(d);
  }
}

RETORT_EACH_TARGET
void join_q4_0(const int8_t* codes, const float* scales, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ4Bytes, codes += kBlock) {
    store_half(out, scales[b]);
    for (int j = 0; j < kBlock / 2; ++j)
      out[2 + j] = static_cast<std::byte>((codes[j] + 8) | (codes[j + kBlock / 2] + 8) << 4);
  }
}

RETORT_EACH_TARGET
void decode_q4_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ4Bytes, x += kBlock) {
    const float d = load_half(in);
    for (int j = 0; j < kBlock / 2; ++j) {
      const auto pair = static_cast<int32_t>(in[2 + j]);
      x[j] = d * static_cast<float>((pair & 15) - 8);
      x[j + kBlock / 2] = d * static_cast<float>((pair >> 4) - 8);
    }
  }
}

// --- one value a block

void encode_f32(const float* x, std::byte* out, int64_t count) {
  std::memcpy(out, x, static_cast<size_t>(count) * 4);
}
void decode_f32(const std::byte* in, float* x, int64_t count) {
  std::memcpy(x, in, static_cast<size_t>(count) * 4);
}

RETORT_EACH_TARGET
void encode_f16(const float* x, std::byte* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store_half(out + 2 * i, x[i]);
}
RETORT_EACH_TARGET
void decode_f16(const std::byte* in, float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = load_half(in + 2 * i);
}

// Nearest even; a NaN keeps its high bits and becomes quiet.
RETORT_EACH_TARGET
void encode_bf16(const float* x, std::byte* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const auto u = std::bit_cast<uint32_t>(x[i]);
    const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const auto bits = static_cast<uint16_t>((u & 0x7fffffff) > 0x7f800000 ? (u >> 16) | 64 : rounded);
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  }
}
RETORT_EACH_TARGET
void decode_bf16(const std::byte* in, float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + 2 * i, sizeof bits);
    x[i] = std::bit_cast<float>(uint32_t{bits} << 16);
  }
}

// --- the table: adding a type is one row and its functions

using Encode = void (*)(const float* x, std::byte* out, int64_t blocks);
using Decode = void (*)(const std::byte* in, float* x, int64_t blocks);
using Quantize = void (*)(const float* x, int8_t* codes, float* scales, int64_t blocks);
using Join = void (*)(const int8_t* codes, const float* scales, std::byte* out, int64_t blocks);

// A type is written by `encode`, or, when a training grid has its codes, by `quantize` and `join`.
struct Codec {
  GgmlTypeInfo info;
  Encode encode = nullptr;
  Decode decode = nullptr;
  Quantize quantize = nullptr;
  Join join = nullptr;
  int8_t lowest = 0, highest = 0;  // the range of the codes
};

Codec row(GgmlType type, const char* name, int64_t block, int64_t bytes) {
  return {.info = {type, name, block, bytes, false}};
}
Codec row(GgmlType type, const char* name, int64_t block, int64_t bytes, Encode encode, Decode decode) {
  return {.info = {type, name, block, bytes, true}, .encode = encode, .decode = decode};
}
Codec row(GgmlType type, const char* name, int64_t block, int64_t bytes, Quantize quantize, Join join,
          Decode decode, int8_t lowest, int8_t highest) {
  return {{type, name, block, bytes, true}, nullptr, decode, quantize, join, lowest, highest};
}

const std::vector<Codec>& codecs() {
  using enum GgmlType;
  static const std::vector<Codec> table = {
      row(F32, "f32", 1, 4, encode_f32, decode_f32),
      row(F16, "f16", 1, 2, encode_f16, decode_f16),
      row(BF16, "bf16", 1, 2, encode_bf16, decode_bf16),
      row(Q8_0, "q8_0", 32, kQ8Bytes, quantize_q8_0, join_q8_0, decode_q8_0, -127, 127),
      row(Q4_0, "q4_0", 32, kQ4Bytes, quantize_q4_0, join_q4_0, decode_q4_0, -8, 7),
      // Only their sizes, so that a file which holds them can be listed.
      row(Q4_1, "q4_1", 32, 20),
      row(Q5_0, "q5_0", 32, 22),
      row(Q5_1, "q5_1", 32, 24),
      row(Q2_K, "q2_k", 256, 84),
      row(Q3_K, "q3_k", 256, 110),
      row(Q4_K, "q4_k", 256, 144),
      row(Q5_K, "q5_k", 256, 176),
      row(Q6_K, "q6_k", 256, 210),
      row(IQ2_XXS, "iq2_xxs", 256, 66),
      row(IQ2_XS, "iq2_xs", 256, 74),
      row(IQ3_XXS, "iq3_xxs", 256, 98),
      row(IQ1_S, "iq1_s", 256, 50),
      row(IQ4_NL, "iq4_nl", 32, 18),
      row(IQ3_S, "iq3_s", 256, 110),
      row(IQ2_S, "iq2_s", 256, 82),
      row(IQ4_XS, "iq4_xs", 256, 136),
      row(I8, "i8", 1, 1),
      row(I16, "i16", 1, 2),
      row(I32, "i32", 1, 4),
      row(I64, "i64", 1, 8),
      row(F64, "f64", 1, 8),
      row(IQ1_M, "iq1_m", 256, 56),
      row(TQ1_0, "tq1_0", 256, 54),
      row(TQ2_0, "tq2_0", 256, 66),
      row(MXFP4, "mxfp4", 32, 17),
      row(NVFP4, "nvfp4", 64, 36),
      row(Q1_0, "q1_0", 128, 18),
  };
  return table;
}

const Codec& codec_of(GgmlType type) {
  for (const Codec& codec : codecs())
    if (codec.info.type == type) return codec;
  fail<DataError>("[ggml] type {} is not known; known with values: {}", static_cast<int32_t>(type),
                  fmt::join(ggml_type_names(), ", "));
}

const Codec& codec_with_values(GgmlType type) {
  const Codec& codec = codec_of(type);
  check<DataError>(codec.info.has_values,
                   "[ggml] values of type {} ({}) cannot be read or written; those that can: {}",
                   codec.info.name, static_cast<int32_t>(type), fmt::join(ggml_type_names(), ", "));
  return codec;
}

const Codec& codec_with_codes(GgmlType type) {
  const Codec& codec = codec_with_values(type);
  check<ShapeError>(codec.quantize != nullptr, "[ggml] type {} has no integer codes; q8_0 and q4_0 have",
                    codec.info.name);
  return codec;
}

// body(begin, end) over blocks, in parallel when there are enough of them.
template <class Body>
void for_blocks(int64_t blocks, int64_t block, const Body& body) {
  at::parallel_for(0, blocks, std::max<int64_t>(1, 16384 / block), body);
}

void check_input(std::string_view where, const at::Tensor& x) {
  check(x.defined() && x.scalar_type() == at::kFloat && x.device().is_cpu(),
        "[{}] x must be f32 on the CPU, got {}", where, x.defined() ? x.toString() : "an undefined tensor");
}

void encode_through_codes(const Codec& codec, const float* x, std::byte* out, int64_t blocks) {
  constexpr int64_t kStep = 32;
  std::array<int8_t, kStep * kBlock> codes;
  std::array<float, kStep> scales;
  RETORT_ASSERT(codec.info.block == kBlock);
  for (int64_t b = 0; b < blocks; b += kStep) {
    const int64_t count = std::min(kStep, blocks - b);
    codec.quantize(x + b * kBlock, codes.data(), scales.data(), count);
    codec.join(codes.data(), scales.data(), out + b * codec.info.block_bytes, count);
  }
}

}  // namespace

const GgmlTypeInfo& ggml_type_info(GgmlType type) { return codec_of(type).info; }

const GgmlTypeInfo& ggml_type_named(std::string_view name) {
  for (const Codec& codec : codecs())
    if (codec.info.has_values && codec.info.name == name) return codec.info;
  const std::vector<std::string> known = ggml_type_names();
  fail<ConfigError>("unknown ggml type \"{}\"{}; known: {}", name, did_you_mean(name, known),
                    fmt::join(known, ", "));
}

std::vector<std::string> ggml_type_names() {
  std::vector<std::string> names;
  for (const Codec& codec : codecs())
    if (codec.info.has_values) names.push_back(codec.info.name);
  return names;
}

int64_t PackedTensor::row_bytes() const {
  const GgmlTypeInfo& info = ggml_type_info(type);
  return (shape.empty() ? 1 : shape.back()) / info.block * info.block_bytes;
}

uint64_t packed_bytes(GgmlType type, std::span<const int64_t> shape) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  const int64_t length = shape.empty() ? 1 : shape.back();
  check<DataError>(length % info.block == 0, "[ggml] a row of {} must divide by its block of {}, got {}",
                   info.name, info.block, format_shape({shape.data(), shape.size()}));
  std::vector<int64_t> blocks(shape.begin(), shape.end());
  if (!blocks.empty()) blocks.back() /= info.block;
  // The values must be countable too, not only the bytes.
  const auto bytes = checked_product(blocks, static_cast<uint64_t>(info.block_bytes));
  check<DataError>(bytes && checked_product(shape, sizeof(float)),
                   "[ggml] the product of a shape must fit in 63 bits, got {}",
                   format_shape({shape.data(), shape.size()}));
  return *bytes;
}

BlockCodes quantize_blocks(GgmlType type, const at::Tensor& x) {
  const Codec& codec = codec_with_codes(type);
  const int64_t block = codec.info.block;
  check_input("quantize_blocks", x);
  check(x.dim() > 0 && x.size(-1) % block == 0,
        "[quantize_blocks] rows must divide by {}'s block of {}, got {}", codec.info.name, block,
        format_shape(x.sizes()));
  std::vector<int64_t> scales_shape = x.sizes().vec();
  scales_shape.back() /= block;
  const at::Tensor dense = x.detach().contiguous();
  BlockCodes out{at::empty(x.sizes(), at::kChar), at::empty(scales_shape, at::kFloat)};
  const float* values = dense.const_data_ptr<float>();
  int8_t* codes = out.codes.mutable_data_ptr<int8_t>();
  float* scales = out.scales.mutable_data_ptr<float>();
  for_blocks(out.scales.numel(), block, [&](int64_t begin, int64_t end) {
    codec.quantize(values + begin * block, codes + begin * block, scales + begin, end - begin);
  });
  return out;
}

namespace {

RETORT_EACH_TARGET
void multiply_codes(const int8_t* codes, const float* scales, float* x, int64_t blocks, int64_t block) {
  for (int64_t b = 0; b < blocks; ++b, codes += block, x += block) {
    const float d = scales[b];
    for (int64_t j = 0; j < block; ++j) x[j] = d * static_cast<float>(codes[j]);
  }
}

// The values a block, from the two shapes.
int64_t block_of(const BlockCodes& blocks) {
  const at::Tensor &codes = blocks.codes, &scales = blocks.scales;
  check(codes.scalar_type() == at::kChar && scales.scalar_type() == at::kFloat && codes.dim() > 0 &&
            codes.dim() == scales.dim() &&
            codes.sizes().slice(0, codes.dim() - 1) == scales.sizes().slice(0, scales.dim() - 1) &&
            (scales.size(-1) == 0 ? codes.size(-1) == 0 : codes.size(-1) % scales.size(-1) == 0),
        "[blocks] codes must be i8 [.., row] and scales f32 [.., row / block], got {} {} and {} {}",
        codes.toString(), format_shape(codes.sizes()), scales.toString(), format_shape(scales.sizes()));
  return scales.size(-1) == 0 ? 1 : codes.size(-1) / scales.size(-1);
}

}  // namespace

at::Tensor dequantize_blocks(const BlockCodes& blocks) {
  const int64_t block = block_of(blocks);
  const at::Tensor codes = blocks.codes.contiguous(), scales = blocks.scales.contiguous();
  at::Tensor out = at::empty(codes.sizes(), at::kFloat);
  const int8_t* c = codes.const_data_ptr<int8_t>();
  const float* s = scales.const_data_ptr<float>();
  float* x = out.mutable_data_ptr<float>();
  for_blocks(scales.numel(), block, [&](int64_t begin, int64_t end) {
    multiply_codes(c + begin * block, s + begin, x + begin * block, end - begin, block);
  });
  return out;
}

PackedTensor pack_blocks(GgmlType type, const BlockCodes& blocks) {
  const Codec& codec = codec_with_codes(type);
  const int64_t block = block_of(blocks);
  const at::Tensor codes = blocks.codes.contiguous(), scales = blocks.scales.contiguous();
  PackedTensor out{type, codes.sizes().vec(), {}};
  if (codes.numel() > 0) {
    check(block == codec.info.block, "[pack_blocks] {} has blocks of {}, got {}", codec.info.name,
          codec.info.block, block);
    const auto [lowest, highest] = codes.aminmax();
    check(lowest.item<int8_t>() >= codec.lowest && highest.item<int8_t>() <= codec.highest,
          "[pack_blocks] codes of {} must be in {} .. {}, got {} .. {}", codec.info.name, codec.lowest,
          codec.highest, lowest.item<int8_t>(), highest.item<int8_t>());
    check(at::equal(scales, scales.to(at::kHalf).to(at::kFloat)),
          "[pack_blocks] every scale must be an f16 number");
  }
  out.bytes.resize(packed_bytes(type, out.shape));
  const int8_t* c = codes.const_data_ptr<int8_t>();
  const float* s = scales.const_data_ptr<float>();
  for_blocks(scales.numel(), codec.info.block, [&](int64_t begin, int64_t end) {
    codec.join(c + begin * block, s + begin, out.bytes.data() + begin * codec.info.block_bytes, end - begin);
  });
  return out;
}

PackedTensor pack(GgmlType type, const at::Tensor& x) {
  const Codec& codec = codec_with_values(type);
  check_input("pack", x);
  const int64_t block = codec.info.block, bytes = codec.info.block_bytes;
  PackedTensor out{type, x.sizes().vec(), {}};
  out.bytes.resize(packed_bytes(type, out.shape));
  const at::Tensor dense = x.detach().contiguous();
  const float* values = dense.const_data_ptr<float>();
  for_blocks(x.numel() / block, block, [&](int64_t begin, int64_t end) {
    if (codec.encode != nullptr)
      codec.encode(values + begin * block, out.bytes.data() + begin * bytes, end - begin);
    else
      encode_through_codes(codec, values + begin * block, out.bytes.data() + begin * bytes, end - begin);
  });
  return out;
}

at::Tensor unpack(GgmlType type, std::span<const std::byte> bytes, std::span<const int64_t> shape) {
  const Codec& codec = codec_with_values(type);
  const int64_t block = codec.info.block, block_bytes = codec.info.block_bytes;
  const uint64_t expected = packed_bytes(type, shape);
  check<DataError>(bytes.size() == expected, "[ggml] {} {} must have {} bytes, got {}", codec.info.name,
                   format_shape({shape.data(), shape.size()}), expected, bytes.size());
  at::Tensor out = at::empty({shape.data(), shape.size()}, at::kFloat);
  float* values = out.mutable_data_ptr<float>();
  for_blocks(out.numel() / block, block, [&](int64_t begin, int64_t end) {
    codec.decode(bytes.data() + begin * block_bytes, values + begin * block, end - begin);
  });
  return out;
}

}  // namespace retort::formats
