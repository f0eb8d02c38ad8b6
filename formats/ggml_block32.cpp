// The types with blocks of 32: a scale, perhaps a minimum, and codes. Nibbles: qs[j] = q[j] | q[j+16] << 4.
// The fifth bits of Q5: bit j of a little-endian u32.
#include "core/each_target.h"
#include "formats/ggml_codec.h"

namespace retort::formats {
namespace {

constexpr int kBlock = 32;
constexpr int64_t kQ8_0 = 34, kQ4_0 = 18, kQ4_1 = 20, kQ5_0 = 22, kQ5_1 = 24, kIq4Nl = 18;  // bytes

// The signed value of the largest magnitude, the first of equals; +0 for a block of zeros.
inline float extreme_value(const float* x) {
  int32_t above = 0, below = 0;
  for (int j = 0; j < kBlock; ++j) {
    above = std::max(above, std::bit_cast<int32_t>(x[j]));
    below = std::max(below, std::bit_cast<int32_t>(-x[j]));
  }
  if (above == below) [[unlikely]]
    for (int j = 0; j < kBlock && above != 0; ++j)
      if ((std::bit_cast<int32_t>(x[j]) & INT32_MAX) == above) return x[j];
  return above >= below ? std::bit_cast<float>(above) : -std::bit_cast<float>(below);
}

// Divisors as the file holds them.
inline void round_to_half(const float* divisor, float* scale, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) scale[b] = as_half(divisor[b]);
}

// --- Q8_0

RETORT_EACH_TARGET
void fit_q8_0(const float* x, const float*, const ScaleRun& out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) out.divisor[b] = largest_magnitude(x + b * kBlock, kBlock) / 127.0f;
  round_to_half(out.divisor, out.scale, blocks);
}

void join_q8_0(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ8_0) {
    store_half(out, scale[b]);
    std::memcpy(out + 2, codes + b * kBlock, kBlock);
  }
}

RETORT_EACH_TARGET
void decode_q8_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ8_0, x += kBlock) {
    const float d = load_half(in);
    const auto* codes = reinterpret_cast<const int8_t*>(in + 2);
    for (int j = 0; j < kBlock; ++j) x[j] = d * static_cast<float>(codes[j]);
  }
}

// --- Q4_0 and Q5_0: d = m / lowest, so a block of zeros has -0.0

RETORT_EACH_TARGET
void fit_q4_0(const float* x, const float*, const ScaleRun& out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) out.divisor[b] = extreme_value(x + b * kBlock) / -8.0f;
  round_to_half(out.divisor, out.scale, blocks);
}
RETORT_EACH_TARGET
void fit_q5_0(const float* x, const float*, const ScaleRun& out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) out.divisor[b] = extreme_value(x + b * kBlock) / -16.0f;
  round_to_half(out.divisor, out.scale, blocks);
}

RETORT_EACH_TARGET
void join_q4_0(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ4_0, codes += kBlock) {
    store_half(out, scale[b]);
    for (int j = 0; j < kBlock / 2; ++j)
      out[2 + j] = static_cast<std::byte>((codes[j] + 8) | (codes[j + kBlock / 2] + 8) << 4);
  }
}

// Codes 0 .. 31 as nibbles and fifth bits.
inline void store_five_bits(const uint8_t* q, std::byte* high, std::byte* low) {
  uint32_t fifth = 0;
  for (int j = 0; j < kBlock; ++j) fifth |= static_cast<uint32_t>(q[j] >> 4) << j;
  std::memcpy(high, &fifth, sizeof fifth);
  for (int j = 0; j < kBlock / 2; ++j)
    low[j] = static_cast<std::byte>((q[j] & 15) | (q[j + kBlock / 2] & 15) << 4);
}
inline void load_five_bits(const std::byte* high, const std::byte* low, int32_t* q) {
  uint32_t fifth;
  std::memcpy(&fifth, high, sizeof fifth);
  for (int j = 0; j < kBlock / 2; ++j) {
    const auto pair = static_cast<int32_t>(low[j]);
    q[j] = (pair & 15) | static_cast<int32_t>((fifth >> j) & 1) << 4;
    q[j + kBlock / 2] = (pair >> 4) | static_cast<int32_t>((fifth >> (j + kBlock / 2)) & 1) << 4;
  }
}

void join_q5_0(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ5_0, codes += kBlock) {
    uint8_t q[kBlock];
    for (int j = 0; j < kBlock; ++j) q[j] = static_cast<uint8_t>(codes[j] + 16);
    store_half(out, scale[b]);
    store_five_bits(q, out + 2, out + 6);
  }
}

RETORT_EACH_TARGET
void decode_q4_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ4_0, x += kBlock) {
    const float d = load_half(in);
    for (int j = 0; j < kBlock / 2; ++j) {
      const auto pair = static_cast<int32_t>(in[2 + j]);
      x[j] = d * static_cast<float>((pair & 15) - 8);
      x[j + kBlock / 2] = d * static_cast<float>((pair >> 4) - 8);
    }
  }
}

void decode_q5_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ5_0, x += kBlock) {
    const float d = load_half(in);
    int32_t q[kBlock];
    load_five_bits(in + 2, in + 6, q);
    for (int j = 0; j < kBlock; ++j) x[j] = d * static_cast<float>(q[j] - 16);
  }
}

// --- Q4_1 and Q5_1: codes are found with d and m as they were before f16 rounded them; those of a grid come with their
// m as the header

struct Affine {
  float d, m;
  uint8_t q[kBlock];
};
Affine fit_affine(const float* x, float levels) {
  float least = x[0], most = x[0];
  for (int j = 1; j < kBlock; ++j) {
    least = x[j] < least ? x[j] : least;
    most = x[j] > most ? x[j] : most;
  }
  Affine out{(most - least) / levels, least, {}};
  const float inverse = out.d != 0.0f ? 1.0f / out.d : 0.0f;
  for (int j = 0; j < kBlock; ++j) {
    const float v = (x[j] - least) * inverse;
    out.q[j] = static_cast<uint8_t>(kernels::clamped(v + 0.5f, 0.0f, levels));
  }
  return out;
}

void encode_q4_1(const float* x, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ4_1, x += kBlock) {
    const Affine a = fit_affine(x, 15.0f);
    store_half(out, a.d);
    store_half(out + 2, a.m);
    for (int j = 0; j < kBlock / 2; ++j)
      out[4 + j] = static_cast<std::byte>(a.q[j] | a.q[j + kBlock / 2] << 4);
  }
}
void encode_q5_1(const float* x, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ5_1, x += kBlock) {
    const Affine a = fit_affine(x, 31.0f);
    store_half(out, a.d);
    store_half(out + 2, a.m);
    store_five_bits(a.q, out + 4, out + 8);
  }
}

void join_q4_1(const int8_t* codes, const float* scale, const std::byte* header, std::byte* out,
               int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ4_1, header += 2, codes += kBlock) {
    store_half(out, scale[b]);
    std::memcpy(out + 2, header, 2);
    for (int j = 0; j < kBlock / 2; ++j)
      out[4 + j] = static_cast<std::byte>(codes[j] | codes[j + kBlock / 2] << 4);
  }
}

void decode_q4_1(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ4_1, x += kBlock) {
    const float d = load_half(in), m = load_half(in + 2);
    for (int j = 0; j < kBlock / 2; ++j) {
      const auto pair = static_cast<int32_t>(in[4 + j]);
      x[j] = d * static_cast<float>(pair & 15) + m;
      x[j + kBlock / 2] = d * static_cast<float>(pair >> 4) + m;
    }
  }
}
void decode_q5_1(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ5_1, x += kBlock) {
    const float d = load_half(in), m = load_half(in + 2);
    int32_t q[kBlock];
    load_five_bits(in + 4, in + 8, q);
    for (int j = 0; j < kBlock; ++j) x[j] = d * static_cast<float>(q[j]) + m;
  }
}

// --- IQ4_NL: sixteen levels, denser around zero

constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void decode_iq4_nl(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kIq4Nl, x += kBlock) {
    const float d = load_half(in);
    for (int j = 0; j < kBlock / 2; ++j) {
      const auto pair = static_cast<uint8_t>(in[2 + j]);
      x[j] = d * kIq4Levels[pair & 15];
      x[j + kBlock / 2] = d * kIq4Levels[pair >> 4];
    }
  }
}

}  // namespace

std::vector<Codec> block32_codecs() {
  using enum GgmlType;
  const auto codes = [](kernels::RoundRule rule, int lowest, int highest, auto fit, auto join) {
    return CodeFormat{
        .rounding = {rule, lowest, highest}, .group = kBlock, .divisors = true, .fit = fit, .join = join};
  };
  return {
      // No fit gives -128; a grid of eight bits may.
      {.info = {Q8_0, "q8_0", kBlock, kQ8_0},
       .decode = decode_q8_0,
       .codes = codes(kernels::RoundRule::kNearestAway, -128, 127, fit_q8_0, join_q8_0)},
      {.info = {Q4_0, "q4_0", kBlock, kQ4_0},
       .decode = decode_q4_0,
       .codes = codes(kernels::RoundRule::kTruncate, -8, 7, fit_q4_0, join_q4_0)},
      {.info = {Q4_1, "q4_1", kBlock, kQ4_1},
       .decode = decode_q4_1,
       .encode = encode_q4_1,
       .codes = {.rounding = {kernels::RoundRule::kNearestEven, 0, 15},
                 .group = kBlock,
                 .offsets = true,
                 .header = 2,
                 .join = join_q4_1}},
      {.info = {Q5_0, "q5_0", kBlock, kQ5_0},
       .decode = decode_q5_0,
       .codes = codes(kernels::RoundRule::kTruncate, -16, 15, fit_q5_0, join_q5_0)},
      {.info = {Q5_1, "q5_1", kBlock, kQ5_1}, .decode = decode_q5_1, .encode = encode_q5_1},
      {.info = {IQ4_NL, "iq4_nl", kBlock, kIq4Nl}, .decode = decode_iq4_nl},
  };
}

}  // namespace retort::formats
