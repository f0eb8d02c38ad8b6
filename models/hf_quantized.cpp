// O out_features, I in_features, g groups of columns.
#include "models/hf_quantized.h"

#include "core/error.h"
#include "core/shape.h"
#include "formats/packed_words.h"
#include "models/families/hf_config.h"

namespace retort::models {
namespace {

using formats::Json;
using Shape = std::vector<int64_t>;
using Values = std::function<at::Tensor(const std::string&)>;

// What the folder stores, and what is made of it.
class Plain {
 public:
  Plain(ForeignFile stored, std::string source) : stored_(std::move(stored)), source_(std::move(source)) {
    out_.where = stored_.where;
    out_.shapes = stored_.shapes;
  }
  const std::map<std::string, Shape>& stored() const { return stored_.shapes; }
  const std::string& source() const { return source_; }
  const Values& values() const { return stored_.values; }

  // The shape of a part of a matrix, which is then no tensor of its own.
  Shape take(const std::string& name, size_t dimensions) {
    const auto found = stored_.shapes.find(name);
    check<DataError>(found != stored_.shapes.end(), "{}: lacks {}", out_.where, name);
    check<DataError>(found->second.size() == dimensions, "{}: {} must have {} dimensions, got {}", out_.where,
                     name, dimensions, format_shape(found->second));
    out_.shapes.erase(name);
    return found->second;
  }
  void refuse(const std::string& name, const char* why) const {
    check<DataError>(!stored_.shapes.contains(name), "{}: {} is not read: {}", out_.where, name, why);
  }
  void offer(const std::string& name, const Shape& shape, std::function<at::Tensor()> make) {
    out_.shapes[name] = shape;
    made_[name] = std::move(make);
  }
  ForeignFile finish() {
    out_.values = [values = stored_.values, made = std::move(made_)](const std::string& name) {
      const auto found = made.find(name);
      return found == made.end() ? values(name) : found->second();
    };
    return std::move(out_);
  }

 private:
  ForeignFile stored_, out_;
  std::string source_;
  std::map<std::string, std::function<at::Tensor()>> made_;
};

bool strip(const std::string& name, const char* suffix, std::string& module) {
  if (!name.ends_with(suffix)) return false;
  module = name.substr(0, name.size() - std::string_view(suffix).size());
  return true;
}

void check_shape_of(const Plain& plain, const std::string& name, const Shape& got, const Shape& wanted) {
  check<DataError>(got == wanted, "{}: {} must have shape {}, got {}", plain.source(), name,
                   format_shape(wanted), format_shape(got));
}

// codes [O, I] times scales [O or 1, g].
at::Tensor scaled(const at::Tensor& codes_OI, const at::Tensor& scales) {
  const at::Tensor s = scales.to(at::kFloat);
  return codes_OI.to(at::kFloat) * s.repeat_interleave(codes_OI.size(1) / s.size(1), 1);
}

Shape scale_shape(Plain& plain, const std::string& module, const Shape& weight) {
  const std::string name = module + ".weight_scale";
  const auto found = plain.stored().find(name);
  if (found != plain.stored().end() && found->second == Shape{1}) return plain.take(name, 1);
  const Shape shape = plain.take(name, 2);
  check<DataError>((shape[0] == weight[0] || shape[0] == 1) && shape[1] > 0 && weight[1] % shape[1] == 0,
                   "{}: {} must have a row for each of {} rows and groups that divide {} columns, got {}",
                   plain.source(), name, weight[0], weight[1], format_shape(shape));
  return shape;
}

int64_t compressed_bits(const Json& config, const std::string& source) {
  const auto groups = config.find("config_groups");
  check<DataError>(groups != config.end() && groups->is_object() && groups->size() == 1,
                   "{}: quantization_config.config_groups must hold one group; several are not read", source);
  const std::string where = source + ": quantization_config.config_groups";
  const Json& group = *groups->begin();
  check<DataError>(group.is_object() && group.contains("weights") && group.at("weights").is_object(),
                   "{}: must say how weights are stored", where);
  const int64_t bits = formats::json_integer(group.at("weights"), "num_bits", where);
  check<DataError>(bits == 4 || bits == 8, "{}: num_bits must be 4 or 8, got {}", where, bits);
  return bits;
}

void offer_packed(Plain& plain, const std::string& module, int64_t bits) {
  const Shape words = plain.take(module + ".weight_packed", 2);
  check_shape_of(plain, module + ".weight_shape", plain.take(module + ".weight_shape", 1), {2});
  plain.refuse(module + ".weight_zero_point", "only symmetric weights are");
  plain.refuse(module + ".weight_g_idx", "only groups in the columns' order are");
  const at::Tensor said = plain.values()(module + ".weight_shape").to(at::kLong);
  const Shape shape = {said[0].item<int64_t>(), said[1].item<int64_t>()};
  check<DataError>(shape[1] > 0 && shape[1] <= words[1] * (32 / bits),
                   "{}: {}.weight_shape says {} columns, its words hold {}", plain.source(), module, shape[1],
                   words[1] * (32 / bits));
  check_shape_of(plain, module + ".weight_packed", words, {shape[0], (shape[1] * bits + 31) / 32});
  const Shape scales = scale_shape(plain, module, shape);
  plain.offer(module + ".weight", shape, [values = plain.values(), module, bits, shape, scales] {
    const at::Tensor codes =
        formats::unpack_words(values(module + ".weight_packed"), bits, shape[1]) - (1 << (bits - 1));
    return scaled(codes, values(module + ".weight_scale").reshape({scales[0], -1}));
  });
}

// NVFP4: E2M1 numbers, two a byte, the first in the low bits; the tensor's scale divides the groups' E4M3
// ones.
void offer_float4(Plain& plain, const std::string& module) {
  const Shape bytes = plain.take(module + ".weight_packed", 2), shape = {bytes[0], 2 * bytes[1]};
  check_shape_of(plain, module + ".weight_global_scale", plain.take(module + ".weight_global_scale", 1), {1});
  const Shape scales = scale_shape(plain, module, shape);
  plain.offer(module + ".weight", shape, [values = plain.values(), module, scales, source = plain.source()] {
    const at::Tensor packed = values(module + ".weight_packed");
    check<DataError>(packed.scalar_type() == at::kByte, "{}: {}.weight_packed must be packed U8, got {}",
                     source, module, c10::toString(packed.scalar_type()));
    const at::Tensor nibbles =
        at::stack({packed.bitwise_and(15), packed.bitwise_right_shift(4)}, -1).flatten(1).to(at::kLong);
    const at::Tensor numbers = at::tensor(
        {0.f, .5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, -0.f, -.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f});
    const at::Tensor scale = values(module + ".weight_scale").reshape({scales[0], -1}).to(at::kFloat);
    return scaled(numbers.index({nibbles}), scale / values(module + ".weight_global_scale").to(at::kFloat));
  });
}

// NAME.weight holds the codes themselves.
void offer_codes(Plain& plain, const std::string& module) {
  plain.refuse(module + ".weight_zero_point", "only symmetric weights are");
  const Shape shape = plain.take(module + ".weight", 2);
  const Shape scales = scale_shape(plain, module, shape);
  plain.offer(module + ".weight", shape, [values = plain.values(), module, scales] {
    return scaled(values(module + ".weight"), values(module + ".weight_scale").reshape({scales[0], -1}));
  });
}

void read_compressed(Plain& plain, const Json& config) {
  const int64_t bits = compressed_bits(config, plain.source());
  const std::map<std::string, Shape> stored = plain.stored();
  std::string module;
  for (const auto& [name, shape] : stored) {
    if (strip(name, ".weight_packed", module)) {
      if (stored.contains(module + ".weight_global_scale"))
        offer_float4(plain, module);
      else
        offer_packed(plain, module, bits);
    }
    if (strip(name, ".weight_scale", module) && stored.contains(module + ".weight"))
      offer_codes(plain, module);
  }
}

void offer_gptq(Plain& plain, const std::string& module, int64_t bits, int64_t zero_offset) {
  const Shape words = plain.take(module + ".qweight", 2);
  const int64_t per_word = 32 / bits, in = words[0] * per_word, out = words[1];
  const Shape scales = plain.take(module + ".scales", 2);
  check_shape_of(plain, module + ".scales", scales, {scales[0], out});
  check_shape_of(plain, module + ".qzeros", plain.take(module + ".qzeros", 2),
                 {scales[0], (out + per_word - 1) / per_word});
  check_shape_of(plain, module + ".g_idx", plain.take(module + ".g_idx", 1), {in});
  plain.offer(module + ".weight", {out, in},
              [values = plain.values(), module, bits, zero_offset, in, out, scales, source = plain.source()] {
                const at::Tensor group_I = values(module + ".g_idx").to(at::kLong);
                check<DataError>(
                    group_I.min().item<int64_t>() >= 0 && group_I.max().item<int64_t>() < scales[0],
                    "{}: {}.g_idx must lie in [0, {})", source, module, scales[0]);
                const at::Tensor codes_OI = formats::unpack_words(values(module + ".qweight").t(), bits, in);
                const at::Tensor zeros_GO =
                    formats::unpack_words(values(module + ".qzeros"), bits, out) + zero_offset;
                const at::Tensor zeros_OI = zeros_GO.index_select(0, group_I).t();
                return (codes_OI - zeros_OI).to(at::kFloat) *
                       values(module + ".scales").to(at::kFloat).index_select(0, group_I).t();
              });
}

void read_gptq(Plain& plain, const Json& config) {
  const std::string where = plain.source() + ": quantization_config";
  const int64_t bits = formats::json_integer(config, "bits", where);
  check<DataError>(bits == 2 || bits == 4 || bits == 8, "{}: bits must be 2, 4 or 8, got {}", where, bits);
  const std::string format =
      config.contains("checkpoint_format") ? formats::json_text(config, "checkpoint_format", where) : "gptq";
  check<DataError>(format == "gptq" || format == "gptq_v2",
                   "{}: checkpoint_format must be gptq or gptq_v2, got {}", where, format);
  const std::map<std::string, Shape> stored = plain.stored();
  std::string module;
  for (const auto& [name, shape] : stored)
    if (strip(name, ".qweight", module)) offer_gptq(plain, module, bits, format == "gptq" ? 1 : 0);
}

// Four codes a byte, each plus 1, from the low bits: of rows r, r + O/4, r + O/2 and r + 3 O/4.
void offer_ternary(Plain& plain, const std::string& module, bool scale_divides) {
  const Shape bytes = plain.take(module + ".weight", 2);
  check_shape_of(plain, module + ".weight_scale", plain.take(module + ".weight_scale", 1), {1});
  plain.offer(module + ".weight", {4 * bytes[0], bytes[1]},
              [values = plain.values(), module, scale_divides, source = plain.source()] {
                const at::Tensor packed = values(module + ".weight");
                check<DataError>(packed.scalar_type() == at::kByte, "{}: {}.weight must be packed U8, got {}",
                                 source, module, c10::toString(packed.scalar_type()));
                std::vector<at::Tensor> quarters;
                for (const int64_t shift : {0, 2, 4, 6})
                  quarters.push_back(packed.bitwise_right_shift(shift).bitwise_and(3));
                const at::Tensor codes_OI = at::cat(quarters).to(at::kFloat) - 1;
                check<DataError>(codes_OI.max().item<float>() <= 1, "{}: {}.weight must hold -1, 0 and 1",
                                 source, module);
                const at::Tensor scale = values(module + ".weight_scale").to(at::kFloat);
                return scale_divides ? codes_OI / scale : codes_OI * scale;
              });
}

void read_bitnet(Plain& plain, const Json& json) {
  const HfConfig config(json, plain.source() + ": quantization_config");
  const std::string kind = config.text("linear_class", "bitlinear");
  check<DataError>(kind == "bitlinear" || kind == "autobitlinear",
                   "{}: linear_class must be bitlinear or autobitlinear, got {}", config.source(), kind);
  check<DataError>(config.text("quantization_mode", "offline") == "offline",
                   "{}: quantization_mode must be offline: online the weights are masters, rounded as "
                   "transformers computes. Without quantization_config they are read as they are",
                   config.source());
  config.must_be("use_rms_norm", false);
  const std::map<std::string, Shape> stored = plain.stored();
  std::string module;
  for (const auto& [name, shape] : stored)
    if (strip(name, ".weight_scale", module)) offer_ternary(plain, module, kind == "bitlinear");
}

}  // namespace

ForeignFile dequantized(ForeignFile stored, const Json& config, const std::string& source) {
  const std::string method = formats::json_text(config, "quant_method", source + ": quantization_config");
  Plain plain(std::move(stored), source);
  if (method == "compressed-tensors")
    read_compressed(plain, config);
  else if (method == "gptq")
    read_gptq(plain, config);
  else if (method == "bitnet")
    read_bitnet(plain, config);
  else
    fail<DataError>("{}: quantization_config.quant_method must be compressed-tensors, gptq or bitnet, got {}",
                    source, method);
  return plain.finish();
}

}  // namespace retort::models
