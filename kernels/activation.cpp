#include "kernels/activation.h"

#include "core/error.h"
#include "core/shape.h"
#include "kernels/reference.h"

namespace retort::kernels {

namespace {

void check_pair(const char* where, const at::Tensor& gate, const at::Tensor& up) {
  check(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(),
        "[{}] gate_NF and up_NF must have one shape and dtype, got {} {} and {} {}", where,
        format_shape(gate.sizes()), c10::toString(gate.scalar_type()), format_shape(up.sizes()),
        c10::toString(up.scalar_type()));
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  check_pair("swiglu", gate_NF, up_NF);
  return reference::swiglu(gate_NF, up_NF);
}

at::Tensor geglu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  check_pair("geglu", gate_NF, up_NF);
  return reference::geglu(gate_NF, up_NF);
}

at::Tensor gelu_tanh(const at::Tensor& x_NF) { return reference::gelu_tanh(x_NF); }

}  // namespace retort::kernels
