// Values that are kept as codes where a device multiplies them (formats/device_codes.h makes them of a file's blocks):
// codes and scales apart, so that codes begin at multiples of 16 bytes.
#pragma once

#include <ATen/ATen.h>

#include "kernels/packed_form.h"

namespace retort::kernels {

struct PackedCodes {
  PackedForm form = PackedForm::kQ8_0;
  at::Tensor codes;   // u8, dense
  at::Tensor scales;  // f16, one a block; of kNf4 u8, the places of sizes in `sizes`
  at::Tensor groups = {}, sizes = {}, map = {};  // of kNf4, f32: one for 256 blocks; [256]; [16]
  float offset = 0;                              // of kNf4

  PackedCodes to(const at::Device& device) const;
};

// The values, f32 or bf16, by one kernel; f32 ones are what formats/ makes of the same codes, bit for bit. ShapeError on the
// CPU, on a device without kernels, and where codes or scales are too few for the shape.
at::Tensor unpack_codes(const PackedCodes& packed, at::IntArrayRef shape, at::ScalarType dtype);

}  // namespace retort::kernels
