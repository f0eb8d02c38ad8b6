// MXFP4 and NVFP4: E2M1 numbers (0 .5 1 1.5 2 3 4 6 and their negatives, nibbles 0 .. 7 and 8 .. 15) under a
// scale a group. OCP Microscaling Formats 1.0 for MXFP4. Codes are twice the number, so that they are whole,
// and scales are half.
//   MXFP4   17 bytes a 32   u8 e; u8 qs[16] as in Q4_0          x = number * 2^(e - 127)
//   NVFP4   36 bytes a 64   u8 d[4]; u8 qs[32]; group s of 16: nibbles of qs[8 s + j], low 16 s + j,
//                           high 16 s + 8 + j                    x = number * d[s], d unsigned E4M3, NaN = 0
#include <cmath>

#include "core/each_target.h"
#include "formats/ggml_codec.h"

namespace retort::formats {
namespace {

constexpr int kMxBlock = 32, kNvBlock = 64;
constexpr int64_t kMxBytes = 17, kNvBytes = 36;
constexpr int8_t kTwice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

inline uint8_t nibble_of(int8_t code) {
  static constexpr uint8_t kNibble[13] = {0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7};  // of twice the number
  return code < 0 ? static_cast<uint8_t>(8 | kNibble[-code]) : kNibble[code];
}

// Half of 2^(e - 127). 2^-128 and 2^-127 are subnormal.
inline float half_power(int e) {
  return std::bit_cast<float>(e > 1 ? static_cast<uint32_t>(e - 1) << 23 : uint32_t{1} << (21 + e));
}

// floor(log2(peak)) of a positive number: its exponent, save where the logarithm, which is rounded, is that
// of the power of two just above it, as ggml's is; and save for subnormals.
inline int floor_log2(float peak) {
  const auto bits = std::bit_cast<int32_t>(peak);
  const bool near_the_next = (bits & 0x7fff00) == 0x7fff00;
  if (near_the_next || bits < (1 << 23)) [[unlikely]]
    return static_cast<int>(std::floor(std::log2(peak)));
  return (bits >> 23) - 127;
}

RETORT_EACH_TARGET
void fit_mxfp4(const float* x, const float*, const ScaleRun& out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float peak = largest_magnitude(x + b * kMxBlock, kMxBlock);
    // A number that is not finite spoils the block.
    const bool finite = std::bit_cast<int32_t>(peak) < 0x7f800000;
    const int e = peak > 0.0f && finite ? floor_log2(peak) + 125 : 0;
    out.scale[b] = finite ? half_power(e > 0 ? e : 0) : peak;
  }
}

void join_mxfp4(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kMxBytes, codes += kMxBlock) {
    out[0] = static_cast<std::byte>(std::ilogb(scale[b]) + 128);
    for (int j = 0; j < kMxBlock / 2; ++j)
      out[1 + j] = static_cast<std::byte>(nibble_of(codes[j]) | nibble_of(codes[j + kMxBlock / 2]) << 4);
  }
}

void decode_mxfp4(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kMxBytes, x += kMxBlock) {
    const float d = half_power(static_cast<int>(in[0]));
    for (int j = 0; j < kMxBlock / 2; ++j) {
      const auto pair = static_cast<uint8_t>(in[1 + j]);
      x[j] = d * static_cast<float>(kTwice[pair & 15]);
      x[j + kMxBlock / 2] = d * static_cast<float>(kTwice[pair >> 4]);
    }
  }
}

// Half of an unsigned E4M3 number: bias 7, subnormals of 2^-9, no infinity; 0x7f is NaN and means 0 here.
inline float half_e4m3(uint8_t bits) {
  if (bits == 0x7f) return 0.0f;
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  return exponent == 0 ? std::ldexp(static_cast<float>(fraction), -10)
                       : std::ldexp(static_cast<float>(8 + fraction), exponent - 11);
}

void decode_nvfp4(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kNvBytes, x += kNvBlock)
    for (int s = 0; s < 4; ++s) {
      const float d = half_e4m3(static_cast<uint8_t>(in[s]));
      for (int j = 0; j < 8; ++j) {
        const auto pair = static_cast<uint8_t>(in[4 + 8 * s + j]);
        x[16 * s + j] = d * static_cast<float>(kTwice[pair & 15]);
        x[16 * s + 8 + j] = d * static_cast<float>(kTwice[pair >> 4]);
      }
    }
}

}  // namespace

std::vector<Codec> float4_codecs() {
  return {{.info = {GgmlType::MXFP4, "mxfp4", kMxBlock, kMxBytes},
           .decode = decode_mxfp4,
           .codes = {.rounding = {kernels::RoundRule::kFloat4, -12, 12},
                     .group = kMxBlock,
                     .power_of_two = true,
                     .fit = fit_mxfp4,
                     .join = join_mxfp4}},
          {.info = {GgmlType::NVFP4, "nvfp4", kNvBlock, kNvBytes}, .decode = decode_nvfp4}};
}

}  // namespace retort::formats
