// The K-quants: super-blocks of 256 with a scale d (and dmin), and a small scale (and minimum) for each
// sub-block:  x = (d * scale) * q [ - dmin * minimum ]
//   Q2_K    84  u8 scales[16] (low nibble scale, high minimum, of 16 values); u8 qs[64]; f16 d; f16 dmin
//   Q3_K   110  u8 hmask[32]; u8 qs[64]; u8 scales[12] (16 of 6 bits, less 32); f16 d; q in -4 .. 3
//   Q4_K   144  f16 d; f16 dmin; u8 scales[12] (8 pairs of 6 bits, of 32 values); u8 qs[128]
//   Q5_K   176  f16 d; f16 dmin; u8 scales[12]; u8 qh[32] (bit s = bit 4 of sub-block s); u8 qs[128]
//   Q6_K   210  u8 ql[128]; u8 qh[64]; i8 scales[16] (of 16 values); f16 d; q - 32
// Two bits of Q2_K and Q3_K: element 128 j + 32 n + m is bits 2n of qs[32 j + m]. Q2_K and Q3_K are written
// with the same scale everywhere: that is what a grid with a scale a row needs, and no search makes codes
// here.
#include "core/each_target.h"
#include "formats/ggml_codec.h"

namespace retort::formats {
namespace {

constexpr int kBlock = 256;
constexpr int64_t kQ2 = 84, kQ3 = 110, kQ4 = 144, kQ5 = 176, kQ6 = 210;

inline const uint8_t* bytes_at(const std::byte* at) { return reinterpret_cast<const uint8_t*>(at); }
inline uint8_t* bytes_at(std::byte* at) { return reinterpret_cast<uint8_t*>(at); }

// Codes 0 .. 3 of a block as qs[64].
void store_two_bits(const uint8_t* q, uint8_t* qs) {
  for (int j = 0; j < 2; ++j)
    for (int m = 0; m < 32; ++m) {
      const uint8_t* e = q + 128 * j + m;
      qs[32 * j + m] = static_cast<uint8_t>(e[0] | e[32] << 2 | e[64] << 4 | e[96] << 6);
    }
}

// --- Q2_K. Codes -3, -1, 1, 3: u (2q - 3) with d = dmin = u, every scale 2 and every minimum 3.

void join_q2_k(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ2, codes += kBlock) {
    uint8_t q[kBlock];
    for (int i = 0; i < kBlock; ++i) q[i] = static_cast<uint8_t>((codes[i] + 3) / 2);
    std::memset(out, 0x32, 16);
    store_two_bits(q, bytes_at(out) + 16);
    store_half(out + 80, scale[b]);
    store_half(out + 82, scale[b]);
  }
}

RETORT_EACH_TARGET
void decode_q2_k(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ2, x += kBlock) {
    const uint8_t *scales = bytes_at(in), *qs = scales + 16;
    const float d = load_half(in + 80), dmin = load_half(in + 82);
    for (int s = 0; s < 16; ++s) {
      const float scale = d * static_cast<float>(scales[s] & 15),
                  minimum = dmin * static_cast<float>(scales[s] >> 4);
      const int j = s / 8, shift = 2 * (s % 8 / 2), first = 16 * (s % 2);
      for (int l = 0; l < 16; ++l)
        x[16 * s + l] = scale * static_cast<float>(qs[32 * j + first + l] >> shift & 3) - minimum;
    }
  }
}

// --- Q3_K. Codes -4 .. 3 with every scale 1, stored as 33.

void join_q3_k(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ3, codes += kBlock) {
    uint8_t q[kBlock], *high = bytes_at(out);
    std::memset(out, 0, 32);
    for (int i = 0; i < kBlock; ++i) {
      q[i] = static_cast<uint8_t>((codes[i] + 4) & 3);
      high[i % 32] |= static_cast<uint8_t>((codes[i] + 4) >> 2 << (i / 32));
    }
    store_two_bits(q, high + 32);
    std::memset(out + 96, 0x11, 8);
    std::memset(out + 104, 0xaa, 4);
    store_half(out + 108, scale[b]);
  }
}

RETORT_EACH_TARGET
void decode_q3_k(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ3, x += kBlock) {
    const uint8_t *high = bytes_at(in), *qs = high + 32, *scales = high + 96;
    const float d = load_half(in + 108);
    for (int s = 0; s < 16; ++s) {
      const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
      const int six = low | (scales[8 + s % 4] >> (2 * (s / 4)) & 3) << 4;
      const float scale = d * static_cast<float>(six - 32);
      const int j = s / 8, shift = 2 * (s % 8 / 2), first = 16 * (s % 2), bit = s / 2;
      for (int l = 0; l < 16; ++l) {
        const int low2 = qs[32 * j + first + l] >> shift & 3, above = high[first + l] >> bit & 1;
        x[16 * s + l] = scale * static_cast<float>(low2 + 4 * above - 4);
      }
    }
  }
}

// --- Q4_K and Q5_K

void join_q4_k(const int8_t* codes, const float*, const std::byte* header, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ4, header += 16, codes += kBlock) {
    std::memcpy(out, header, 16);
    uint8_t* qs = bytes_at(out) + 16;
    for (int k = 0; k < 4; ++k)
      for (int l = 0; l < 32; ++l)
        qs[32 * k + l] = static_cast<uint8_t>(codes[64 * k + l] | codes[64 * k + 32 + l] << 4);
  }
}

void join_q5_k(const int8_t* codes, const float*, const std::byte* header, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ5, header += 16, codes += kBlock) {
    std::memcpy(out, header, 16);
    uint8_t *qh = bytes_at(out) + 16, *qs = qh + 32;
    std::memset(qh, 0, 32);
    for (int k = 0; k < 4; ++k)
      for (int l = 0; l < 32; ++l) {
        const int a = codes[64 * k + l], c = codes[64 * k + 32 + l];
        qs[32 * k + l] = static_cast<uint8_t>((a & 15) | (c & 15) << 4);
        qh[l] |= static_cast<uint8_t>((a >> 4) << (2 * k) | (c >> 4) << (2 * k + 1));
      }
  }
}

RETORT_EACH_TARGET
void decode_q4_k(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ4, x += kBlock) {
    const float d = load_half(in), dmin = load_half(in + 2);
    const uint8_t* qs = bytes_at(in) + 16;
    for (int s = 0; s < 8; ++s) {
      const ScaleAndMinimum six = six_bits(bytes_at(in) + 4, s);
      const float scale = d * static_cast<float>(six.scale), minimum = dmin * static_cast<float>(six.minimum);
      for (int l = 0; l < 32; ++l)
        x[32 * s + l] = scale * static_cast<float>(qs[32 * (s / 2) + l] >> (4 * (s % 2)) & 15) - minimum;
    }
  }
}

RETORT_EACH_TARGET
void decode_q5_k(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ5, x += kBlock) {
    const float d = load_half(in), dmin = load_half(in + 2);
    const uint8_t *qh = bytes_at(in) + 16, *qs = qh + 32;
    for (int s = 0; s < 8; ++s) {
      const ScaleAndMinimum six = six_bits(bytes_at(in) + 4, s);
      const float scale = d * static_cast<float>(six.scale), minimum = dmin * static_cast<float>(six.minimum);
      for (int l = 0; l < 32; ++l) {
        const int q = (qs[32 * (s / 2) + l] >> (4 * (s % 2)) & 15) | (qh[l] >> s & 1) << 4;
        x[32 * s + l] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

// --- Q6_K: header = the 16 sub-scales and d

void join_q6_k(const int8_t* codes, const float*, const std::byte* header, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kQ6, header += 18, codes += kBlock) {
    uint8_t *ql = bytes_at(out), *qh = ql + 128;
    for (int half = 0; half < 2; ++half, ql += 64, qh += 32)
      for (int l = 0; l < 32; ++l) {
        int q[4];
        for (int n = 0; n < 4; ++n) q[n] = codes[128 * half + 32 * n + l] + 32;
        ql[l] = static_cast<uint8_t>((q[0] & 15) | (q[2] & 15) << 4);
        ql[l + 32] = static_cast<uint8_t>((q[1] & 15) | (q[3] & 15) << 4);
        qh[l] = static_cast<uint8_t>(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
      }
    std::memcpy(out + 192, header, 18);
  }
}

RETORT_EACH_TARGET
void decode_q6_k(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kQ6, x += kBlock) {
    const float d = load_half(in + 208);
    const auto* scales = reinterpret_cast<const int8_t*>(in + 192);
    for (int s = 0; s < 16; ++s) {
      const int half = s / 8, n = s % 8 / 2, first = 16 * (s % 2);
      const uint8_t *ql = bytes_at(in) + 64 * half + 32 * (n % 2) + first,
                    *qh = bytes_at(in) + 128 + 32 * half + first;
      const float scale = d * static_cast<float>(scales[s]);
      for (int l = 0; l < 16; ++l) {
        const int q = (ql[l] >> (4 * (n / 2)) & 15) | (qh[l] >> (2 * n) & 3) << 4;
        x[16 * s + l] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace

std::vector<Codec> k_codecs() {
  using enum GgmlType;
  const auto uniform = [](kernels::RoundRule rule, int lowest, int highest, auto join) {
    return CodeFormat{.rounding = {rule, lowest, highest}, .group = kBlock, .join = join};
  };
  const auto searched = [](int lowest, int highest, int64_t group, int64_t header, auto fit, auto join) {
    return CodeFormat{.rounding = {kernels::RoundRule::kNearestEven, lowest, highest},
                      .group = group,
                      .offsets = group == 32,
                      .header = header,
                      .fit = fit,
                      .join = join};
  };
  return {{.info = {Q2_K, "q2_k", kBlock, kQ2},
           .decode = decode_q2_k,
           .codes = uniform(kernels::RoundRule::kOdd, -3, 3, join_q2_k)},
          {.info = {Q3_K, "q3_k", kBlock, kQ3},
           .decode = decode_q3_k,
           .codes = uniform(kernels::RoundRule::kNearestEven, -4, 3, join_q3_k)},
          {.info = {Q4_K, "q4_k", kBlock, kQ4},
           .decode = decode_q4_k,
           .codes = searched(0, 15, 32, 16, fit_q4_k, join_q4_k)},
          {.info = {Q5_K, "q5_k", kBlock, kQ5},
           .decode = decode_q5_k,
           .codes = searched(0, 31, 32, 16, fit_q5_k, join_q5_k)},
          {.info = {Q6_K, "q6_k", kBlock, kQ6},
           .decode = decode_q6_k,
           .codes = searched(-32, 31, 16, 18, fit_q6_k, join_q6_k)}};
}

}  // namespace retort::formats
