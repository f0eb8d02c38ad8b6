#include "formats/gptq_layout.h"

#include "core/error.h"
#include "formats/packed_words.h"

namespace retort::formats {
namespace {

const char* name_of(GptqVersion version) { return version == GptqVersion::kFirst ? "gptq" : "gptq_v2"; }

// What the first version's zeros have too little.
int64_t zero_offset(GptqVersion version) { return version == GptqVersion::kFirst ? 1 : 0; }

void unpack_matrix(Unpacking& folder, const std::string& module, int64_t bits, GptqVersion version) {
  using Shape = Unpacking::Shape;
  const Shape words = folder.take(module + ".qweight", 2);
  const int64_t per_word = 32 / bits, in = words[0] * per_word, out = words[1];
  const Shape scales = folder.take(module + ".scales", 2);
  folder.check_shape(module + ".scales", scales, {scales[0], out});
  folder.take_shaped(module + ".qzeros", {scales[0], (out + per_word - 1) / per_word});
  folder.take_shaped(module + ".g_idx", {in});
  const auto make = [values = folder.values(), module, bits, version, in, out, groups = scales[0],
                     source = folder.source()] {
    const at::Tensor group_I = values(module + ".g_idx").to(at::kLong);
    check<DataError>(group_I.min().item<int64_t>() >= 0 && group_I.max().item<int64_t>() < groups,
                     "{}: {}.g_idx must lie in [0, {})", source, module, groups);
    const at::Tensor codes_OI = unpack_words(values(module + ".qweight").t(), bits, in);
    const at::Tensor zeros_GO = unpack_words(values(module + ".qzeros"), bits, out) + zero_offset(version);
    const at::Tensor zeros_OI = zeros_GO.index_select(0, group_I).t();
    return (codes_OI - zeros_OI).to(at::kFloat) *
           values(module + ".scales").to(at::kFloat).index_select(0, group_I).t();
  };
  folder.offer(module + ".weight", {out, in}, make);
}

}  // namespace

NamedTensors pack_gptq(const kernels::BlockCodes& matrix_OI, int64_t bits, GptqVersion version) {
  const at::Tensor& scales_OG = matrix_OI.scales.scale;
  const int64_t out = matrix_OI.codes.size(0), in = matrix_OI.codes.size(1), groups = scales_OG.size(1);
  const at::Tensor scales = scales_OG.to(at::kHalf);
  check<ConfigError>(at::equal(scales.to(at::kFloat), scales_OG), "[gptq] scales must be f16 numbers");
  const int64_t middle = int64_t{1} << (bits - 1), zero = middle - zero_offset(version);
  return {{"qweight", pack_words(matrix_OI.codes.to(at::kInt) + middle, bits).t()},
          {"qzeros", pack_words(at::full({groups, out}, zero, at::kInt), bits)},
          {"scales", scales.t()},
          {"g_idx", at::floor_divide(at::arange(in, at::kLong), in / groups).to(at::kInt)}};
}

Json gptq_config(int64_t bits, int64_t group_size, GptqVersion version) {
  return {{"quant_method", "gptq"},
          {"bits", bits},
          {"group_size", group_size},
          {"desc_act", false},
          {"sym", true},
          {"lm_head", false},
          {"damp_percent", 0.01},
          {"true_sequential", false},
          {"checkpoint_format", name_of(version)}};
}

StoredTensors unpack_gptq(StoredTensors stored, const Json& config, const std::string& source) {
  const std::string where = source + ": quantization_config";
  const int64_t bits = json_integer(config, "bits", where);
  check<DataError>(bits == 2 || bits == 4 || bits == 8, "{}: bits must be 2, 4 or 8, got {}", where, bits);
  const std::string format =
      config.contains("checkpoint_format") ? json_text(config, "checkpoint_format", where) : "gptq";
  check<DataError>(format == "gptq" || format == "gptq_v2",
                   "{}: checkpoint_format must be gptq or gptq_v2, got {}", where, format);
  Unpacking folder(std::move(stored), source);
  for (const std::string& module : folder.modules_with(".qweight"))
    unpack_matrix(folder, module, bits, format == "gptq" ? GptqVersion::kFirst : GptqVersion::kSecond);
  return folder.finish();
}

}  // namespace retort::formats
