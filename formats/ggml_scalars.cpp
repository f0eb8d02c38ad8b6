// F32, F16 and BF16: one value a block.
#include "core/each_target.h"
#include "formats/ggml_codec.h"

namespace retort::formats {
namespace {

void copy_in(const float* x, std::byte* out, int64_t count) {
  std::memcpy(out, x, static_cast<size_t>(count) * 4);
}
void copy_out(const std::byte* in, float* x, int64_t count) {
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

}  // namespace

std::vector<Codec> scalar_codecs() {
  return {{.info = {GgmlType::F32, "f32", 1, 4}, .decode = copy_out, .encode = copy_in},
          {.info = {GgmlType::F16, "f16", 1, 2}, .decode = decode_f16, .encode = encode_f16},
          {.info = {GgmlType::BF16, "bf16", 1, 2}, .decode = decode_bf16, .encode = encode_bf16}};
}

}  // namespace retort::formats
