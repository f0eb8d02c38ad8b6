// Forms in which values are kept as codes, by the numbers that packed_codes.h and the CUDA kernels use.
#pragma once

namespace retort::kernels {

enum class PackedForm {
  kQ8_0,  // i8 codes; an f16 scale for 32 of them
  kQ4_0,  // 16 bytes for 32 values: byte j has the codes of value j, low, and j + 16, each plus 8; an f16 scale
  kNf4,  // two codes a byte, the first one high; sizes for 64 values as formats/nf4.h has them
};

}  // namespace retort::kernels
