#include "formats/device_codes.h"

#include <cstring>

#include "core/error.h"

namespace retort::formats {

kernels::PackedCodes device_codes(const PackedTensor& packed) {
  check<ConfigError>(packed.type == GgmlType::Q8_0 || packed.type == GgmlType::Q4_0,
                     "[device_codes] blocks must be q8_0 or q4_0, got {}", ggml_type_info(packed.type).name);
  const GgmlTypeInfo& info = ggml_type_info(packed.type);
  constexpr int64_t kScale = 2;  // bytes of an f16, which a block begins with
  at::Tensor bytes = at::empty({static_cast<int64_t>(packed.bytes.size())}, at::kByte);
  if (!packed.bytes.empty())
    std::memcpy(bytes.mutable_data_ptr<uint8_t>(), packed.bytes.data(), packed.bytes.size());
  bytes = bytes.view({-1, info.block_bytes});  // whose parts are copied, for memory of their own
  return {.form = packed.type == GgmlType::Q8_0 ? kernels::PackedForm::kQ8_0 : kernels::PackedForm::kQ4_0,
          .codes = bytes.slice(1, kScale).clone(at::MemoryFormat::Contiguous),
          .scales = bytes.slice(1, 0, kScale).clone(at::MemoryFormat::Contiguous).view(at::kHalf)};
}

kernels::PackedCodes device_codes(const Nf4Tensor& packed) {
  return {.form = kernels::PackedForm::kNf4,
          .codes = packed.codes,
          .scales = packed.sizes,
          .groups = packed.groups,
          .sizes = byte_map(),
          .map = nf4_map(),
          .offset = packed.offset};
}

}  // namespace retort::formats
