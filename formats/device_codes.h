// A file's blocks as kernels of a device take them (kernels/packed_codes.h): the same bytes, codes and scales apart. On the
// CPU; pure functions.
#pragma once

#include "formats/ggml_blocks.h"
#include "formats/nf4.h"
#include "kernels/packed_codes.h"

namespace retort::formats {

// Of Q8_0 or Q4_0; ConfigError for others.
kernels::PackedCodes device_codes(const PackedTensor& packed);
kernels::PackedCodes device_codes(const Nf4Tensor& packed);

}  // namespace retort::formats
