// The device's values of codes against those of formats/, bit for bit.
#include <gtest/gtest.h>

#include "formats/device_codes.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using formats::GgmlType;
using kernels::cuda::Ops;

at::Tensor weights(at::IntArrayRef shape) {
  at::Tensor x = normal(shape, 3, 0.05).to(at::kFloat).contiguous();
  at::Tensor flat = x.view({-1});
  flat.slice(0, 0, 32).zero_();
  flat[1] = -0.0f;
  if (flat.numel() > 64) flat.slice(0, 32, 64).mul_(1e-7);  // scales that f16 has few bits for
  return x;
}

void expect_values(const std::string& what, const kernels::PackedCodes& codes, const at::Tensor& want) {
  everywhere(
      what,
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        Tensors out;
        for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
          out.push_back(at::empty(want.sizes(), at::TensorOptions(device).dtype(dtype)));
          ops.unpack(codes.to(device), out.back());
        }
        return out;
      },
      [&](const Tensors& got) {
        EXPECT_TRUE(same_bits(got[0], want)) << what;
        EXPECT_TRUE(same_bits(got[1], want.to(at::kBFloat16))) << what << " in bf16";
      });
}

TEST(CudaPackedCodes, BlocksAreTheFormatsBitForBit) {
  for (const GgmlType type : {GgmlType::Q8_0, GgmlType::Q4_0})
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{1, 32}, {3, 96}, {31, 288}, {5, 4096}, {1, 8224}}) {
      const formats::PackedTensor packed = formats::pack(type, weights(shape));
      expect_values(formats::ggml_type_info(type).name, formats::device_codes(packed),
                    formats::unpack(packed));
    }
}

// Rows of any length: the last block is filled up, and the values are not.
TEST(CudaPackedCodes, Nf4IsTheFormatsBitForBit) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{1, 33}, {1, 64}, {3, 31}, {7, 65}, {31, 288}, {9, 2049}, {5, 8191}}) {
    const formats::Nf4Tensor packed = formats::pack_nf4(weights(shape));
    expect_values("nf4", formats::device_codes(packed), formats::unpack_nf4(packed));
  }
}

}  // namespace
}  // namespace retort::testing
