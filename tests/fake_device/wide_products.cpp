// Products of bf16 into f32, which LibTorch has for CUDA alone: given to the CPU here, so that the host can stand in for
// the device as it does for the other operators.
#include <ATen/ATen.h>
#include <torch/library.h>

namespace retort::testing {
namespace {

at::Tensor& mm_into(const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype, at::Tensor& out) {
  return at::mm_out(out, a.to(dtype), b.to(dtype));
}
at::Tensor& addmm_into(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype,
                       const at::Scalar& beta, const at::Scalar& alpha, at::Tensor& out) {
  return at::addmm_out(out, sum, a.to(dtype), b.to(dtype), beta, alpha);
}

TORCH_LIBRARY_IMPL(aten, CPU, m) {
  m.impl("mm.dtype_out", &mm_into);
  m.impl("addmm.dtype_out", &addmm_into);
}

}  // namespace
}  // namespace retort::testing
