#include "models/hf_quantized.h"

#include "core/error.h"
#include "formats/bitnet_layout.h"
#include "formats/compressed_tensors.h"
#include "formats/gptq_layout.h"

namespace retort::models {

ForeignFile dequantized(ForeignFile stored, const formats::Json& config, const std::string& source) {
  const std::string method = formats::json_text(config, "quant_method", source + ": quantization_config");
  if (method == "compressed-tensors") return formats::unpack_compressed(std::move(stored), config, source);
  if (method == "gptq") return formats::unpack_gptq(std::move(stored), config, source);
  if (method == "bitnet") return formats::unpack_bitnet(std::move(stored), config, source);
  fail<DataError>("{}: quantization_config.quant_method must be compressed-tensors, gptq or bitnet, got {}",
                  source, method);
}

}  // namespace retort::models
