#include "formats/bitnet_layout.h"

#include "core/error.h"

namespace retort::formats {
namespace {

void unpack_matrix(Unpacking& folder, const std::string& module, bool scale_divides) {
  const Unpacking::Shape bytes = folder.take(module + ".weight", 2);
  folder.take_shaped(module + ".weight_scale", {1});
  const auto make = [values = folder.values(), module, scale_divides, source = folder.source()] {
    const at::Tensor packed = values(module + ".weight");
    check<DataError>(packed.scalar_type() == at::kByte, "{}: {}.weight must be packed U8, got {}", source,
                     module, c10::toString(packed.scalar_type()));
    std::vector<at::Tensor> quarters;
    for (const int64_t shift : {0, 2, 4, 6})
      quarters.push_back(packed.bitwise_right_shift(shift).bitwise_and(3));
    const at::Tensor codes_OI = at::cat(quarters).to(at::kFloat) - 1;
    check<DataError>(codes_OI.max().item<float>() <= 1, "{}: {}.weight must hold -1, 0 and 1", source,
                     module);
    const at::Tensor scale = values(module + ".weight_scale").to(at::kFloat);
    return scale_divides ? codes_OI / scale : codes_OI * scale;
  };
  folder.offer(module + ".weight", {4 * bytes[0], bytes[1]}, make);
}

// null and absent mean the default, as in all of config.json.
std::string word(const Json& config, const char* key, const char* absent, const std::string& where) {
  const auto found = config.find(key);
  return found == config.end() || found->is_null() ? absent : json_text(config, key, where);
}

}  // namespace

StoredTensors unpack_bitnet(StoredTensors stored, const Json& config, const std::string& source) {
  const std::string where = source + ": quantization_config";
  const std::string kind = word(config, "linear_class", "bitlinear", where);
  check<DataError>(kind == "bitlinear" || kind == "autobitlinear",
                   "{}: linear_class must be bitlinear or autobitlinear, got {}", where, kind);
  check<DataError>(word(config, "quantization_mode", "offline", where) == "offline",
                   "{}: quantization_mode must be offline: online the weights are masters, rounded as "
                   "transformers computes. Without quantization_config they are read as they are",
                   where);
  const auto norm = config.find("use_rms_norm");
  check<DataError>(norm == config.end() || norm->is_null() || *norm == false,
                   "{}: use_rms_norm must be false, got {}", where, norm == config.end() ? "" : norm->dump());
  Unpacking folder(std::move(stored), source);
  for (const std::string& module : folder.modules_with(".weight_scale"))
    unpack_matrix(folder, module, kind == "bitlinear");
  return folder.finish();
}

}  // namespace retort::formats
