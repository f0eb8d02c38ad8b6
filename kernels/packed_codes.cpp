#include "kernels/packed_codes.h"

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda_ops.h"

namespace retort::kernels {

PackedCodes PackedCodes::to(const at::Device& device) const {
  const auto there = [&](const at::Tensor& x) { return x.defined() ? x.to(device) : x; };
  return {form, there(codes), there(scales), there(groups), there(sizes), there(map), offset};
}

at::Tensor unpack_codes(const PackedCodes& packed, at::IntArrayRef shape, at::ScalarType dtype) {
  const int64_t n = c10::multiply_integers(shape), block = packed.form == PackedForm::kNf4 ? 64 : 32;
  const int64_t bytes = packed.form == PackedForm::kQ8_0 ? n : (n + 1) / 2, blocks = (n + block - 1) / block;
  check(packed.codes.numel() >= bytes && packed.scales.numel() >= blocks &&
            (packed.form == PackedForm::kNf4 ? packed.groups.numel() * 256 >= blocks : n % block == 0),
        "[unpack_codes] {} wants {} bytes of codes and {} scales, got {} and {}", format_shape(shape), bytes,
        blocks, packed.codes.numel(), packed.scales.numel());
  const at::Tensor values = at::empty(shape, packed.codes.options().dtype(dtype));
  const cuda::Ops* const ops = cuda::ops_for(values);
  check(ops != nullptr, "[unpack_codes] makes f32 or bf16 on a device that has kernels, not {}",
        values.toString());
  ops->unpack(packed, values);
  return values;
}

}  // namespace retort::kernels
