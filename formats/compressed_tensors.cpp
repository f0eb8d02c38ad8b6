#include "formats/compressed_tensors.h"

#include "core/error.h"
#include "core/shape.h"
#include "formats/packed_words.h"

namespace retort::formats {
namespace {

using Shape = Unpacking::Shape;

// ---- Writing

at::Tensor stored_scales(const at::Tensor& scales, at::ScalarType dtype) {
  const at::Tensor half = scales.to(at::kHalf);
  return dtype == at::kHalf && at::equal(half.to(at::kFloat), scales) ? half : scales;
}

// Codes are twice E2M1 numbers; a nibble is a number's place among them, the sign above it.
NamedTensors pack_float4(const kernels::BlockCodes& m) {
  const at::Tensor places = at::tensor({0, 1, 2, 3, 4, -1, 5, -1, 6, -1, -1, -1, 7}, at::kInt);
  const at::Tensor codes_OI = m.codes.to(at::kInt);
  const at::Tensor nibbles_OI =
      places.index({codes_OI.abs().to(at::kLong)}) + codes_OI.lt(0).to(at::kInt) * 8;
  const at::Tensor global = m.scales.header[0].contiguous().view(at::kFloat);
  return {{"weight_packed", pack_words(nibbles_OI, 4).view(at::kByte)},
          {"weight_scale", (m.scales.scale * 2.0 * global).to(at::kFloat8_e4m3fn)},
          {"weight_global_scale", global}};
}

const char* format_of(const CompressedScheme& scheme, bool activations) {
  if (scheme.has_global_scale()) return "nvfp4-pack-quantized";
  if (!activations) return "pack-quantized";
  return scheme.type == "float" ? "float-quantized" : "int-quantized";
}

// ---- Reading

// codes [O, I] times scales [O or 1, g].
at::Tensor scaled(const at::Tensor& codes_OI, const at::Tensor& scales) {
  const at::Tensor s = scales.to(at::kFloat);
  return codes_OI.to(at::kFloat) * s.repeat_interleave(codes_OI.size(1) / s.size(1), 1);
}

Shape take_scales(Unpacking& folder, const std::string& module, const Shape& weight) {
  const std::string name = module + ".weight_scale";
  const auto found = folder.stored().find(name);
  if (found != folder.stored().end() && found->second == Shape{1}) return folder.take(name, 1);
  const Shape shape = folder.take(name, 2);
  check<DataError>((shape[0] == weight[0] || shape[0] == 1) && shape[1] > 0 && weight[1] % shape[1] == 0,
                   "{}: {} must have a row for each of {} rows and groups that divide {} columns, got {}",
                   folder.source(), name, weight[0], weight[1], format_shape(shape));
  return shape;
}

int64_t bits_in(const Json& config, const std::string& source) {
  const auto groups = config.find("config_groups");
  check<DataError>(groups != config.end() && groups->is_object() && groups->size() == 1,
                   "{}: quantization_config.config_groups must hold one group; several are not read", source);
  const std::string where = source + ": quantization_config.config_groups";
  const Json& group = *groups->begin();
  check<DataError>(group.is_object() && group.contains("weights") && group.at("weights").is_object(),
                   "{}: must say how weights are stored", where);
  const int64_t bits = json_integer(group.at("weights"), "num_bits", where);
  check<DataError>(bits == 4 || bits == 8, "{}: num_bits must be 4 or 8, got {}", where, bits);
  return bits;
}

void unpack_integers(Unpacking& folder, const std::string& module, int64_t bits) {
  const Shape words = folder.take(module + ".weight_packed", 2);
  folder.take_shaped(module + ".weight_shape", {2});
  folder.refuse(module + ".weight_zero_point", "only symmetric weights are");
  folder.refuse(module + ".weight_g_idx", "only groups in the columns' order are");
  const at::Tensor sizes = folder.values()(module + ".weight_shape").to(at::kLong);
  const Shape shape = {sizes[0].item<int64_t>(), sizes[1].item<int64_t>()};
  check<DataError>(shape[1] > 0 && shape[1] <= words[1] * (32 / bits),
                   "{}: {}.weight_shape says {} columns, its words hold {}", folder.source(), module,
                   shape[1], words[1] * (32 / bits));
  folder.check_shape(module + ".weight_packed", words, {shape[0], (shape[1] * bits + 31) / 32});
  const Shape scales = take_scales(folder, module, shape);
  folder.offer(module + ".weight", shape, [values = folder.values(), module, bits, shape, scales] {
    const at::Tensor codes =
        unpack_words(values(module + ".weight_packed"), bits, shape[1]) - (1 << (bits - 1));
    return scaled(codes, values(module + ".weight_scale").reshape({scales[0], -1}));
  });
}

void unpack_float4(Unpacking& folder, const std::string& module) {
  const Shape bytes = folder.take(module + ".weight_packed", 2), shape = {bytes[0], 2 * bytes[1]};
  folder.take_shaped(module + ".weight_global_scale", {1});
  const Shape scales = take_scales(folder, module, shape);
  const auto make = [values = folder.values(), module, scales, source = folder.source()] {
    const at::Tensor packed = values(module + ".weight_packed");
    check<DataError>(packed.scalar_type() == at::kByte, "{}: {}.weight_packed must be packed U8, got {}",
                     source, module, c10::toString(packed.scalar_type()));
    const at::Tensor nibbles =
        at::stack({packed.bitwise_and(15), packed.bitwise_right_shift(4)}, -1).flatten(1).to(at::kLong);
    const at::Tensor numbers = at::tensor(
        {0.f, .5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, -0.f, -.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f});
    const at::Tensor scale = values(module + ".weight_scale").reshape({scales[0], -1}).to(at::kFloat);
    return scaled(numbers.index({nibbles}), scale / values(module + ".weight_global_scale").to(at::kFloat));
  };
  folder.offer(module + ".weight", shape, make);
}

// NAME.weight holds the codes themselves.
void unpack_plain_codes(Unpacking& folder, const std::string& module) {
  folder.refuse(module + ".weight_zero_point", "only symmetric weights are");
  const Shape shape = folder.take(module + ".weight", 2);
  const Shape scales = take_scales(folder, module, shape);
  folder.offer(module + ".weight", shape, [values = folder.values(), module, scales] {
    return scaled(values(module + ".weight"), values(module + ".weight_scale").reshape({scales[0], -1}));
  });
}

}  // namespace

NamedTensors pack_compressed(const CompressedScheme& scheme, const kernels::BlockCodes& matrix_OI,
                             bool activations, at::ScalarType dtype) {
  if (scheme.has_global_scale()) return pack_float4(matrix_OI);
  const at::Tensor scales = stored_scales(matrix_OI.scales.scale, dtype);
  if (activations) return {{"weight", matrix_OI.codes}, {"weight_scale", scales}};
  const at::Tensor codes_OI = matrix_OI.codes.to(at::kInt) + (1 << (scheme.bits - 1));
  return {{"weight_packed", pack_words(codes_OI, scheme.bits)},
          {"weight_scale", scales},
          {"weight_shape", at::tensor(codes_OI.sizes(), at::kLong)}};
}

Json compressed_config(const CompressedScheme& scheme, bool activations,
                       const std::vector<std::string>& plain) {
  Json weights = {{"num_bits", scheme.bits},
                  {"type", scheme.type},
                  {"symmetric", true},
                  {"strategy", scheme.strategy},
                  {"group_size", scheme.group_size > 0 ? Json(scheme.group_size) : Json()},
                  {"dynamic", false},
                  {"actorder", nullptr},
                  {"block_structure", nullptr},
                  {"observer", "minmax"},
                  {"observer_kwargs", Json::object()}};
  if (scheme.has_global_scale()) weights["scale_dtype"] = weights["zp_dtype"] = "torch.float8_e4m3fn";
  Json inputs;  // null: as they are
  if (activations) {
    inputs = weights;
    inputs["strategy"] = "token";
    inputs["dynamic"] = true;
    inputs["group_size"] = nullptr;
    inputs["observer"] = nullptr;
  }
  std::vector<std::string> ignore = {"lm_head"};
  ignore.insert(ignore.end(), plain.begin(), plain.end());
  return {{"quant_method", "compressed-tensors"},
          {"format", format_of(scheme, activations)},
          {"quantization_status", "compressed"},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"input_activations", inputs},
              {"output_activations", nullptr},
              {"weights", weights}}}}}};
}

StoredTensors unpack_compressed(StoredTensors stored, const Json& config, const std::string& source) {
  Unpacking folder(std::move(stored), source);
  const int64_t bits = bits_in(config, source);
  for (const std::string& module : folder.modules_with(".weight_packed"))
    if (folder.stored().contains(module + ".weight_global_scale"))
      unpack_float4(folder, module);
    else
      unpack_integers(folder, module, bits);
  for (const std::string& module : folder.modules_with(".weight_scale"))
    if (folder.stored().contains(module + ".weight")) unpack_plain_codes(folder, module);
  return folder.finish();
}

}  // namespace retort::formats
