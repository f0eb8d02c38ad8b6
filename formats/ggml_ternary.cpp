// TQ1_0 and TQ2_0: blocks of 256 of -1, 0 and 1 times the largest magnitude of the block. t = code + 1.
//   TQ2_0   qs[32 j + m] bits 2n, 2n + 1 = element 128 j + 32 n + m, n < 4; f16 d last
//   TQ1_0   five trits a byte, the first the most significant, byte = ceil(number * 256 / 243):
//           qs[m], m < 32: elements m + 32 n; qs[32 + m], m < 16: 160 + m + 16 n;
//           qh[m], m < 4: 240 + m + 4 n, n < 4, and 0 for the fifth; f16 d last
#include "core/each_target.h"
#include "formats/ggml_codec.h"

namespace retort::formats {
namespace {

constexpr int kBlock = 256;
constexpr int64_t kTq1Bytes = 54, kTq2Bytes = 66;

RETORT_EACH_TARGET
void fit_ternary(const float* x, const float*, const ScaleRun& out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) {
    out.divisor[b] = largest_magnitude(x + b * kBlock, kBlock);
    out.scale[b] = as_half(out.divisor[b]);
  }
}

RETORT_EACH_TARGET
void join_tq2_0(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kTq2Bytes, codes += kBlock) {
    for (int j = 0; j < 2; ++j)
      for (int m = 0; m < 32; ++m) {
        const int8_t* q = codes + 128 * j + m;
        out[32 * j + m] =
            static_cast<std::byte>((q[0] + 1) | (q[32] + 1) << 2 | (q[64] + 1) << 4 | (q[96] + 1) << 6);
      }
    store_half(out + 64, scale[b]);
  }
}

RETORT_EACH_TARGET
void decode_tq2_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kTq2Bytes, x += kBlock) {
    const float d = load_half(in + 64);
    for (int j = 0; j < 2; ++j)
      for (int n = 0; n < 4; ++n)
        for (int m = 0; m < 32; ++m) {
          const int32_t t = static_cast<int32_t>(in[32 * j + m]) >> (2 * n) & 3;
          x[128 * j + 32 * n + m] = d * static_cast<float>(t - 1);
        }
  }
}

// Where the `trits` trits of byte `index` (of 52) stand: first + stride * n.
struct Trits {
  int first, stride, count;
};
inline Trits trits_of(int index) {
  if (index < 32) return {index, 32, 5};
  if (index < 48) return {160 + index - 32, 16, 5};
  return {240 + index - 48, 4, 4};
}

void join_tq1_0(const int8_t* codes, const float* scale, const std::byte*, std::byte* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, out += kTq1Bytes, codes += kBlock) {
    for (int i = 0; i < 52; ++i) {
      const Trits t = trits_of(i);
      int32_t number = 0;
      for (int n = 0; n < 5; ++n) number = 3 * number + (n < t.count ? codes[t.first + t.stride * n] + 1 : 0);
      out[i] = static_cast<std::byte>((number * 256 + 242) / 243);
    }
    store_half(out + 52, scale[b]);
  }
}

void decode_tq1_0(const std::byte* in, float* x, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, in += kTq1Bytes, x += kBlock) {
    const float d = load_half(in + 52);
    for (int i = 0; i < 52; ++i) {
      const Trits t = trits_of(i);
      auto rest = static_cast<uint8_t>(in[i]);
      for (int n = 0; n < t.count; ++n, rest = static_cast<uint8_t>(rest * 3))
        x[t.first + t.stride * n] = d * static_cast<float>((rest * 3 >> 8) - 1);
    }
  }
}

}  // namespace

std::vector<Codec> ternary_codecs() {
  const auto codes = [](auto join) {
    return CodeFormat{.rounding = {kernels::RoundRule::kNearestAway, -1, 1},
                      .group = kBlock,
                      .divisors = true,
                      .fit = fit_ternary,
                      .join = join};
  };
  return {{.info = {GgmlType::TQ1_0, "tq1_0", kBlock, kTq1Bytes},
           .decode = decode_tq1_0,
           .codes = codes(join_tq1_0)},
          {.info = {GgmlType::TQ2_0, "tq2_0", kBlock, kTq2Bytes},
           .decode = decode_tq2_0,
           .codes = codes(join_tq2_0)}};
}

}  // namespace retort::formats
