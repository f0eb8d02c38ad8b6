#include "kernels/norm.h"

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

// Rows whose part of a weight's gradient is summed apart: a fixed number, so that the sum is the same for
// any number of threads.
constexpr int64_t kRowsOfPart = 64;

at::Tensor factors(const at::Tensor& weight_D, bool unit_offset) {
  const at::Tensor w = weight_D.to(at::kFloat).contiguous();
  return unit_offset ? w + 1.0 : w;
}

at::Tensor sum_parts(const at::Tensor& parts_PD) {
  const int64_t parts = parts_PD.size(0), width = parts_PD.size(1);
  at::Tensor sum_D = at::zeros({width}, parts_PD.options());
  const float* part = parts_PD.const_data_ptr<float>();
  float* sum = sum_D.mutable_data_ptr<float>();
  at::parallel_for(0, width, cpu::grain(parts), [&](int64_t begin, int64_t end) {
    for (int64_t p = 0; p < parts; ++p)
      for (int64_t i = begin; i < end; ++i) sum[i] += part[p * width + i];
  });
  return sum_D;
}

// loop(first row, rows, f32 gradients of the parameters, [P * width]) for every part of the rows, and the sum
// of what it added there.
template <class Loop>
at::Tensor over_parts(int64_t rows, int64_t width, int64_t parameters, Loop loop) {
  const int64_t parts = (rows + kRowsOfPart - 1) / kRowsOfPart;
  at::Tensor gradients = at::zeros({parts, parameters * width}, at::kFloat);
  float* gradient = gradients.mutable_data_ptr<float>();
  at::parallel_for(0, parts, cpu::grain(width * kRowsOfPart), [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t row = part * kRowsOfPart;
      loop(row, std::min(kRowsOfPart, rows - row), gradient + part * parameters * width);
    }
  });
  return sum_parts(gradients);
}

// Of x, or of x + residual where there is one.
cuda::Ops::Added cpu_add_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& w,
                                  double eps) {
  const int64_t width = x.size(-1), rows = width > 0 ? x.numel() / width : 0;
  cuda::Ops::Added out{residual.defined() ? at::empty_like(x) : at::Tensor(), at::empty_like(x),
                       at::empty({rows}, x.options().dtype(at::kFloat))};
  cpu::with_elements(x, [&](auto element) {
    using T = decltype(element);
    const T* const other = residual.defined() ? cpu::read<T>(residual) : nullptr;
    T* const added = residual.defined() ? cpu::write<T>(out.sum_ND) : nullptr;
    at::parallel_for(0, rows, cpu::grain(width), [&](int64_t begin, int64_t end) {
      const int64_t at_row = begin * width;
      cpu::cpu_table().of<T>().rms_norm(
          cpu::read<T>(x) + at_row, other == nullptr ? nullptr : other + at_row, w.const_data_ptr<float>(),
          added == nullptr ? nullptr : added + at_row, cpu::write<T>(out.y_ND) + at_row,
          cpu::write<float>(out.rstd_N) + begin, end - begin, width, static_cast<float>(eps));
    });
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> cpu_rms_norm(const at::Tensor& x, const at::Tensor& w, double eps) {
  const cuda::Ops::Added out = cpu_add_rms_norm(x, {}, w, eps);
  return {out.y_ND, out.rstd_N};
}

// dx and dw in f32. dsum, which may be undefined, is what else reaches x.
std::pair<at::Tensor, at::Tensor> cpu_rms_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                                                        const at::Tensor& w, const at::Tensor& rstd_N,
                                                        const at::Tensor& dsum = {}) {
  const int64_t width = x.size(-1), rows = rstd_N.size(0);
  at::Tensor dx = at::empty_like(x), dw;
  cpu::with_elements(x, [&](auto element) {
    using T = decltype(element);
    const T* const other = dsum.defined() ? cpu::read<T>(dsum) : nullptr;
    dw = over_parts(rows, width, 1, [&](int64_t row, int64_t count, float* gradient) {
      const int64_t at_row = row * width;
      cpu::cpu_table().of<T>().rms_norm_backward(cpu::read<T>(dy) + at_row, cpu::read<T>(x) + at_row,
                                                 w.const_data_ptr<float>(), cpu::read<float>(rstd_N) + row,
                                                 other == nullptr ? nullptr : other + at_row,
                                                 cpu::write<T>(dx) + at_row, gradient, count, width);
    });
  });
  return {dx, dw};
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_ND, const at::Tensor& weight_D,
                            double eps, bool unit_offset) {
    const at::Tensor x = x_ND.contiguous(), w = factors(weight_D, unit_offset);
    const auto [y, rstd_N] = x.is_cpu() ? cpu_rms_norm(x, w, eps) : cuda::ops_for(x)->rms_norm(x, w, eps);
    context->save_for_backward({x, weight_D, rstd_N});
    context->saved_data["unit_offset"] = unit_offset;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], dy = gradients[0].contiguous();
    const at::Tensor w = factors(saved[1], context->saved_data["unit_offset"].toBool());
    RECORD_USER_SCOPE_WITH_INPUTS("retort::rms_norm_backward", std::vector<c10::IValue>({dy, x, w}));
    const auto [dx, dw] = x.is_cpu() ? cpu_rms_norm_backward(dy, x, w, saved[2])
                                     : cuda::ops_for(x)->rms_norm_backward(dy, x, w, saved[2]);
    return {dx, dw.to(saved[1].scalar_type()), {}, {}};
  }
};

struct AddRmsNorm : torch::autograd::Function<AddRmsNorm> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x_ND,
                               const at::Tensor& residual_ND, const at::Tensor& weight_D, double eps,
                               bool unit_offset) {
    const at::Tensor x = x_ND.contiguous(), residual = residual_ND.contiguous(),
                     w = factors(weight_D, unit_offset);
    const auto [sum, y, rstd_N] = x.is_cpu() ? cpu_add_rms_norm(x, residual, w, eps)
                                             : cuda::ops_for(x)->add_rms_norm(x, residual, w, eps);
    context->save_for_backward({sum, weight_D, rstd_N});
    context->saved_data["unit_offset"] = unit_offset;
    context->set_materialize_grads(false);  // a model's last norm is all that reads its sum
    return {sum, y};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    if (!gradients[1].defined()) return {gradients[0], gradients[0], {}, {}, {}};
    const at::Tensor &sum = saved[0], dy = gradients[1].contiguous(),
                     dsum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const at::Tensor w = factors(saved[1], context->saved_data["unit_offset"].toBool());
    RECORD_USER_SCOPE_WITH_INPUTS("retort::add_rms_norm_backward", std::vector<c10::IValue>({dy, sum, dsum}));
    const auto [dx, dw] = sum.is_cpu() ? cpu_rms_norm_backward(dy, sum, w, saved[2], dsum)
                                       : cuda::ops_for(sum)->rms_norm_backward(dy, sum, w, saved[2], dsum);
    return {dx, dx, dw.to(saved[1].scalar_type()), {}, {}};
  }
};

// y, and mean and rstd, [2, N].
std::pair<at::Tensor, at::Tensor> cpu_layer_norm(const at::Tensor& x, const at::Tensor& w,
                                                 const at::Tensor& b, double eps) {
  const int64_t width = x.size(-1), rows = width > 0 ? x.numel() / width : 0;
  at::Tensor y = at::empty_like(x), moments_2N = at::empty({2, rows}, x.options().dtype(at::kFloat));
  float *mean = cpu::write<float>(moments_2N), *rstd = mean + rows;
  cpu::with_elements(x, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, rows, cpu::grain(width), [&](int64_t begin, int64_t end) {
      cpu::cpu_table().of<T>().layer_norm(cpu::read<T>(x) + begin * width, cpu::read<float>(w),
                                          cpu::read<float>(b), cpu::write<T>(y) + begin * width, mean + begin,
                                          rstd + begin, end - begin, width, static_cast<float>(eps));
    });
  });
  return {y, moments_2N};
}

// dx, and dw and db in f32, one after the other.
std::pair<at::Tensor, at::Tensor> cpu_layer_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                                                          const at::Tensor& w, const at::Tensor& moments_2N) {
  const int64_t width = x.size(-1), rows = moments_2N.size(1);
  const float *mean = cpu::read<float>(moments_2N), *rstd = mean + rows;
  at::Tensor dx = at::empty_like(x), dwb;
  cpu::with_elements(x, [&](auto element) {
    using T = decltype(element);
    dwb = over_parts(rows, width, 2, [&](int64_t row, int64_t count, float* gradient) {
      const int64_t at_row = row * width;
      cpu::cpu_table().of<T>().layer_norm_backward(
          cpu::read<T>(dy) + at_row, cpu::read<T>(x) + at_row, cpu::read<float>(w), mean + row, rstd + row,
          cpu::write<T>(dx) + at_row, gradient, gradient + width, count, width);
    });
  });
  return {dx, dwb};
}

struct LayerNorm : torch::autograd::Function<LayerNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_ND, const at::Tensor& weight_D,
                            const at::Tensor& bias_D, double eps) {
    const at::Tensor x = x_ND.contiguous(), w = factors(weight_D, false), b = factors(bias_D, false);
    const auto [y, moments_2N] =
        x.is_cpu() ? cpu_layer_norm(x, w, b, eps) : cuda::ops_for(x)->layer_norm(x, w, b, eps);
    context->save_for_backward({x, weight_D, moments_2N});
    context->saved_data["bias_dtype"] = static_cast<int64_t>(bias_D.scalar_type());
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], dy = gradients[0].contiguous(), w = factors(saved[1], false);
    const int64_t width = x.size(-1);
    RECORD_USER_SCOPE_WITH_INPUTS("retort::layer_norm_backward", std::vector<c10::IValue>({dy, x, w}));
    const auto [dx, both] = x.is_cpu() ? cpu_layer_norm_backward(dy, x, w, saved[2])
                                       : cuda::ops_for(x)->layer_norm_backward(dy, x, w, saved[2]);
    const at::Tensor dwb = both.view({-1});
    const auto bias_dtype = static_cast<at::ScalarType>(context->saved_data["bias_dtype"].toInt());
    return {dx, dwb.narrow(0, 0, width).to(saved[1].scalar_type()),
            dwb.narrow(0, width, width).to(bias_dtype), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, double eps, bool unit_offset) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::rms_norm", std::vector<c10::IValue>({x_ND, weight_D}));
  check_shape("rms_norm", "weight_D", weight_D, {x_ND.size(-1)});
  if (cpu::has_loops(x_ND) || cuda::takes(x_ND)) return RmsNorm::apply(x_ND, weight_D, eps, unit_offset);
  return reference::rms_norm(x_ND, weight_D, eps, unit_offset);
}

AddedNorm add_rms_norm(const at::Tensor& x_ND, const at::Tensor& residual_ND, const at::Tensor& weight_D,
                       double eps, bool unit_offset) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::add_rms_norm", std::vector<c10::IValue>({x_ND, residual_ND}));
  check_shape("add_rms_norm", "weight_D", weight_D, {x_ND.size(-1)});
  check(residual_ND.sizes() == x_ND.sizes(), "[add_rms_norm] residual_ND must be {}, got {}",
        format_shape(x_ND.sizes()), format_shape(residual_ND.sizes()));
  if (x_ND.scalar_type() == residual_ND.scalar_type() && (cpu::has_loops(x_ND) || cuda::takes(x_ND))) {
    const variable_list out = AddRmsNorm::apply(x_ND, residual_ND, weight_D, eps, unit_offset);
    return {out[0], out[1]};
  }
  const at::Tensor sum_ND = x_ND + residual_ND;
  return {sum_ND, rms_norm(sum_ND, weight_D, eps, unit_offset)};
}

at::Tensor layer_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::layer_norm", std::vector<c10::IValue>({x_ND, weight_D, bias_D}));
  const int64_t width = x_ND.size(-1);
  check_shape("layer_norm", "weight_D", weight_D, {width});
  check_shape("layer_norm", "bias_D", bias_D, {width});
  if (cpu::has_loops(x_ND) || cuda::takes(x_ND)) return LayerNorm::apply(x_ND, weight_D, bias_D, eps);
  const at::ScalarType dtype = x_ND.scalar_type();
  return at::layer_norm(x_ND, {width}, weight_D.to(dtype), bias_D.to(dtype), eps);
}

}  // namespace retort::kernels
