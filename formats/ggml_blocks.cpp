#include "formats/ggml_blocks.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "formats/ggml_codec.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

Codec only_size(GgmlType type, const char* name, int64_t block, int64_t bytes) {
  return {.info = {type, name, block, bytes}};
}

// Adding a type is a row in its family's file, or here when only its size is known, so that a file which
// holds it can be listed.
const std::vector<Codec>& codecs() {
  using enum GgmlType;
  static const std::vector<Codec> table = [] {
    std::vector<Codec> rows;
    for (auto family : {scalar_codecs, block32_codecs, k_codecs, ternary_codecs, float4_codecs})
      for (Codec& codec : family()) {
        codec.info.has_values = true;
        codec.info.is_written = codec.encode != nullptr || codec.codes.fit != nullptr;
        rows.push_back(std::move(codec));
      }
    for (Codec codec :
         {only_size(IQ2_XXS, "iq2_xxs", 256, 66), only_size(IQ2_XS, "iq2_xs", 256, 74),
          only_size(IQ3_XXS, "iq3_xxs", 256, 98), only_size(IQ1_S, "iq1_s", 256, 50),
          only_size(IQ3_S, "iq3_s", 256, 110), only_size(IQ2_S, "iq2_s", 256, 82),
          only_size(IQ4_XS, "iq4_xs", 256, 136), only_size(I8, "i8", 1, 1), only_size(I16, "i16", 1, 2),
          only_size(I32, "i32", 1, 4), only_size(I64, "i64", 1, 8), only_size(F64, "f64", 1, 8),
          only_size(IQ1_M, "iq1_m", 256, 56), only_size(Q1_0, "q1_0", 128, 18)})
      rows.push_back(std::move(codec));
    return rows;
  }();
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
  check<DataError>(codec.info.has_values, "[ggml] values of type {} ({}) cannot be read; those that can: {}",
                   codec.info.name, static_cast<int32_t>(type), fmt::join(ggml_type_names(), ", "));
  return codec;
}

const Codec& written_codec(GgmlType type) {
  const Codec& codec = codec_of(type);
  check<DataError>(codec.info.is_written, "[ggml] type {} ({}) cannot be written; those that can: {}",
                   codec.info.name, static_cast<int32_t>(type), fmt::join(written_ggml_types(), ", "));
  return codec;
}

const Codec& codec_with_codes(GgmlType type) {
  const Codec& codec = codec_with_values(type);
  if (codec.codes.join != nullptr) return codec;
  std::vector<std::string> known;
  for (const Codec& other : codecs())
    if (other.codes.join != nullptr) known.push_back(other.info.name);
  fail<ShapeError>("[ggml] type {} has no integer codes; those that have: {}", codec.info.name,
                   fmt::join(known, ", "));
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

// The scales of `blocks` blocks, each pointer at what belongs to block b.
struct ScaleBuffers {
  at::Tensor scale, offset, divisor, header;
  ScaleBuffers(const Codec& codec, std::vector<int64_t> shape) {
    const CodeFormat& c = codec.codes;
    const int64_t row = shape.back();
    shape.back() = row / c.group;
    scale = at::empty(shape, at::kFloat);
    if (c.offsets) offset = at::empty(shape, at::kFloat);
    if (c.divisors) divisor = at::empty(shape, at::kFloat);
    shape.back() = row / codec.info.block * c.header;
    if (c.header > 0) header = at::empty(shape, at::kByte);
  }
  ScaleRun at_block(const Codec& codec, int64_t b) {
    const int64_t g = b * (codec.info.block / codec.codes.group);
    const auto floats = [g](at::Tensor& t) {
      return t.defined() ? t.mutable_data_ptr<float>() + g : nullptr;
    };
    return {floats(scale), floats(offset), floats(divisor),
            header.defined()
                ? reinterpret_cast<std::byte*>(header.mutable_data_ptr<uint8_t>()) + b * codec.codes.header
                : nullptr};
  }
};

// Fits blocks [begin, end) of x; with an importance, which repeats every row, one at a time.
void fit_run(const Codec& codec, const float* x, const float* importance, int64_t row_blocks,
             ScaleBuffers& out, int64_t begin, int64_t end) {
  const int64_t block = codec.info.block;
  if (importance == nullptr)
    return codec.codes.fit(x + begin * block, nullptr, out.at_block(codec, begin), end - begin);
  for (int64_t b = begin; b < end; ++b)
    codec.codes.fit(x + b * block, importance + b % row_blocks * block, out.at_block(codec, b), 1);
}

void round_run(const Codec& codec, const float* x, const ScaleRun& scales, int8_t* codes, int64_t blocks) {
  const CodeFormat& c = codec.codes;
  kernels::round_groups(x, scales.divisor != nullptr ? scales.divisor : scales.scale, scales.offset, codes,
                        blocks * (codec.info.block / c.group), c.group, c.rounding);
}

// Quantizes in pieces that a cache holds.
void encode_through_codes(const Codec& codec, const float* x, std::byte* out, int64_t blocks) {
  const int64_t block = codec.info.block, step = std::max<int64_t>(1, 2048 / block);
  std::vector<int8_t> codes(static_cast<size_t>(step * block));
  ScaleBuffers buffers(codec, {step * block});
  const ScaleRun scales = buffers.at_block(codec, 0);
  for (int64_t b = 0; b < blocks; b += step) {
    const int64_t count = std::min(step, blocks - b);
    codec.codes.fit(x + b * block, nullptr, scales, count);
    round_run(codec, x + b * block, scales, codes.data(), count);
    codec.codes.join(codes.data(), scales.scale, scales.header, out + b * codec.info.block_bytes, count);
  }
}

kernels::BlockCodes quantize_with(const Codec& codec, const at::Tensor& x, const at::Tensor& importance,
                                  bool round) {
  check_input("quantize_blocks", x);
  check<ShapeError>(codec.codes.fit != nullptr, "[ggml] {} has no formula for its scales: a grid gives them",
                    codec.info.name);
  const int64_t block = codec.info.block, row = x.dim() > 0 ? x.size(-1) : 0;
  check(x.dim() > 0 && row % block == 0, "[quantize_blocks] a row of {} must divide by {}, got {}",
        codec.info.name, block, format_shape(x.sizes()));
  if (importance.defined())
    check(importance.scalar_type() == at::kFloat && importance.dim() == 1 && importance.size(0) == row &&
              importance.is_contiguous(),
          "[quantize_blocks] importance must be f32 [{}], got {}", row, format_shape(importance.sizes()));
  const at::Tensor dense = x.contiguous();
  ScaleBuffers scales(codec, x.sizes().vec());
  kernels::BlockCodes out{round ? at::empty(x.sizes(), at::kChar) : at::Tensor(), {}};
  const float *values = dense.const_data_ptr<float>(),
              *weights = importance.defined() ? importance.const_data_ptr<float>() : nullptr;
  int8_t* codes = round ? out.codes.mutable_data_ptr<int8_t>() : nullptr;
  for_blocks(x.numel() / block, block, [&](int64_t begin, int64_t end) {
    const int64_t step = std::max<int64_t>(1, 16384 / block);  // fitted and rounded while a cache holds it
    for (int64_t b = begin; b < end; b += step) {
      const int64_t count = std::min(step, end - b);
      fit_run(codec, values, weights, row / block, scales, b, b + count);
      if (round) round_run(codec, values + b * block, scales.at_block(codec, b), codes + b * block, count);
    }
  });
  out.scales = {scales.scale, scales.offset, scales.divisor, scales.header};
  return out;
}

}  // namespace

const GgmlTypeInfo& ggml_type_info(GgmlType type) { return codec_of(type).info; }

const GgmlTypeInfo& ggml_type_named(std::string_view name) {
  for (const Codec& codec : codecs())
    if (codec.info.is_written && codec.info.name == name) return codec.info;
  const std::vector<std::string> known = written_ggml_types();
  fail<ConfigError>("unknown ggml type \"{}\"{}; known: {}", name, did_you_mean(name, known),
                    fmt::join(known, ", "));
}

std::vector<std::string> ggml_type_names() {
  std::vector<std::string> names;
  for (const Codec& codec : codecs())
    if (codec.info.has_values) names.push_back(codec.info.name);
  return names;
}

std::vector<std::string> written_ggml_types() {
  std::vector<std::string> names;
  for (const Codec& codec : codecs())
    if (codec.info.is_written) names.push_back(codec.info.name);
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

kernels::BlockScales fit_blocks(GgmlType type, const at::Tensor& x, const at::Tensor& importance) {
  return quantize_with(codec_with_codes(type), x, importance, /*round=*/false).scales;
}

kernels::BlockCodes quantize_blocks(GgmlType type, const at::Tensor& x, const at::Tensor& importance) {
  return quantize_with(codec_with_codes(type), x, importance, /*round=*/true);
}

kernels::Rounding block_rounding(GgmlType type) { return codec_with_codes(type).codes.rounding; }

namespace {

void check_codes(const Codec& codec, const at::Tensor& codes) {
  check(codes.scalar_type() == at::kChar && codes.dim() > 0, "[pack_blocks] codes of {} must be i8, got {}",
        codec.info.name, codes.toString());
  if (codes.numel() == 0) return;
  const auto [least, most] = codes.aminmax();
  const int low = least.item<int8_t>(), high = most.item<int8_t>();
  check(low >= codec.codes.rounding.lowest && high <= codec.codes.rounding.highest,
        "[pack_blocks] codes of {} must be in {} .. {}, got {} .. {}", codec.info.name,
        codec.codes.rounding.lowest, codec.codes.rounding.highest, low, high);
}

// The scale of every group of the type, those of larger groups repeated.
at::Tensor scales_of_groups(const Codec& codec, const kernels::BlockCodes& blocks) {
  const CodeFormat& c = codec.codes;
  const at::Tensor& scale = blocks.scales.scale;
  const int64_t row = blocks.codes.size(-1), given = scale.dim() > 0 ? scale.size(-1) : 0;
  check(scale.scalar_type() == at::kFloat && scale.dim() == blocks.codes.dim() &&
            scale.sizes().slice(0, scale.dim() - 1) == blocks.codes.sizes().slice(0, scale.dim() - 1) &&
            row % codec.info.block == 0 && (row == 0 || (given > 0 && row / c.group % given == 0)),
        "[pack_blocks] {} wants a scale for every {} values of a row or for whole multiples, got {} for {}",
        codec.info.name, c.group, format_shape(scale.sizes()), format_shape(blocks.codes.sizes()));
  const bool finite = scale.isfinite().all().item<bool>();
  check(finite, "[pack_blocks] every scale must be finite: the weights are not");
  if (c.header > 0) {
    check(given == row / c.group && blocks.scales.header.defined() &&
              blocks.scales.header.numel() == blocks.codes.numel() / codec.info.block * c.header,
          "[pack_blocks] the scales of {} must come with their header", codec.info.name);
  } else if (c.power_of_two) {
    check(at::equal(scale, at::exp2(at::log2(scale.to(at::kDouble)).round()).to(at::kFloat)),
          "[pack_blocks] every scale of {} must be a power of two", codec.info.name);
  } else {
    check(at::equal(scale, scale.to(at::kHalf).to(at::kFloat)),
          "[pack_blocks] every scale must be an f16 number");
  }
  if (row == 0) return scale;
  return scale.repeat_interleave(row / c.group / given, -1).contiguous();
}

}  // namespace

PackedTensor pack_blocks(GgmlType type, const kernels::BlockCodes& blocks) {
  const Codec& codec = codec_with_codes(type);
  const CodeFormat& c = codec.codes;
  check_codes(codec, blocks.codes);
  const at::Tensor codes = blocks.codes.contiguous(), scale = scales_of_groups(codec, blocks);
  const at::Tensor header = c.header > 0 ? blocks.scales.header.contiguous() : at::Tensor();
  PackedTensor out{type, codes.sizes().vec(), {}};
  out.bytes.resize(packed_bytes(type, out.shape));
  const int8_t* q = codes.const_data_ptr<int8_t>();
  const float* s = scale.const_data_ptr<float>();
  const auto* h =
      header.defined() ? reinterpret_cast<const std::byte*>(header.const_data_ptr<uint8_t>()) : nullptr;
  const int64_t block = codec.info.block, groups = block / c.group;
  for_blocks(codes.numel() / block, block, [&](int64_t begin, int64_t end) {
    c.join(q + begin * block, s + begin * groups, h != nullptr ? h + begin * c.header : nullptr,
           out.bytes.data() + begin * codec.info.block_bytes, end - begin);
  });
  return out;
}

PackedTensor pack(GgmlType type, const at::Tensor& x) {
  const Codec& codec = written_codec(type);
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
