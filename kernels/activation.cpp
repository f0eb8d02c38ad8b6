#include "kernels/activation.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cpu/elements.h"
#include "kernels/cuda_ops.h"
#include "kernels/reference.h"

namespace retort::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class T>
const T* part(const at::Tensor& x, int64_t begin) {
  return x.defined() ? cpu::read<T>(x) + begin : nullptr;
}

at::Tensor cpu_forward(Gate gate, const at::Tensor& a, const at::Tensor& u) {
  at::Tensor y = at::empty_like(a);
  cpu::with_elements(a, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, a.numel(), cpu::grain(1), [&](int64_t begin, int64_t end) {
      cpu::cpu_table().of<T>().gate(gate, part<T>(a, begin), part<T>(u, begin), cpu::write<T>(y) + begin,
                                    end - begin);
    });
  });
  return y;
}

std::pair<at::Tensor, at::Tensor> cpu_backward(Gate gate, const at::Tensor& dy, const at::Tensor& a,
                                               const at::Tensor& u) {
  at::Tensor da = at::empty_like(a), du = u.defined() ? at::empty_like(u) : at::Tensor();
  cpu::with_elements(a, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, a.numel(), cpu::grain(1), [&](int64_t begin, int64_t end) {
      cpu::cpu_table().of<T>().gate_backward(gate, part<T>(dy, begin), part<T>(a, begin), part<T>(u, begin),
                                             cpu::write<T>(da) + begin,
                                             du.defined() ? cpu::write<T>(du) + begin : nullptr, end - begin);
    });
  });
  return {da, du};
}

// kind(a) u, or kind(a) where u is undefined. Saves its inputs and recomputes the gate.
struct Gated : torch::autograd::Function<Gated> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& a_NF,
                            const std::optional<at::Tensor>& u_NF, Gate kind) {
    const at::Tensor a = a_NF.contiguous(), u = u_NF ? u_NF->contiguous() : at::Tensor();
    context->save_for_backward({a, u});
    context->saved_data["kind"] = static_cast<int64_t>(kind);
    return a.is_cpu() ? cpu_forward(kind, a, u) : cuda::ops_for(a)->gate(kind, a, u);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &a = saved[0], &u = saved[1], dy = gradients[0].contiguous();
    RECORD_USER_SCOPE_WITH_INPUTS("retort::gate_backward", std::vector<c10::IValue>({dy, a, u}));
    const auto kind = static_cast<Gate>(context->saved_data["kind"].toInt());
    const auto [da, du] =
        a.is_cpu() ? cpu_backward(kind, dy, a, u) : cuda::ops_for(a)->gate_backward(kind, dy, a, u);
    return {da, du, at::Tensor()};
  }
};

bool has_fused(const at::Tensor& x) { return cpu::has_loops(x) || cuda::takes(x); }

void check_pair(const char* where, const at::Tensor& gate, const at::Tensor& up) {
  check(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(),
        "[{}] gate_NF and up_NF must have one shape and dtype, got {} {} and {} {}", where,
        format_shape(gate.sizes()), c10::toString(gate.scalar_type()), format_shape(up.sizes()),
        c10::toString(up.scalar_type()));
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::swiglu", std::vector<c10::IValue>({gate_NF, up_NF}));
  check_pair("swiglu", gate_NF, up_NF);
  return has_fused(gate_NF) ? Gated::apply(gate_NF, up_NF, Gate::kSilu) : reference::swiglu(gate_NF, up_NF);
}

at::Tensor geglu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::geglu", std::vector<c10::IValue>({gate_NF, up_NF}));
  check_pair("geglu", gate_NF, up_NF);
  return has_fused(gate_NF) ? Gated::apply(gate_NF, up_NF, Gate::kGeluTanh)
                            : reference::geglu(gate_NF, up_NF);
}

at::Tensor relu2glu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::relu2glu", std::vector<c10::IValue>({gate_NF, up_NF}));
  check_pair("relu2glu", gate_NF, up_NF);
  return has_fused(gate_NF) ? Gated::apply(gate_NF, up_NF, Gate::kRelu2)
                            : reference::relu2glu(gate_NF, up_NF);
}

at::Tensor gelu_tanh(const at::Tensor& x_NF) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::gelu_tanh", std::vector<c10::IValue>({x_NF}));
  return has_fused(x_NF) ? Gated::apply(x_NF, std::nullopt, Gate::kGeluTanh) : reference::gelu_tanh(x_NF);
}

}  // namespace retort::kernels
