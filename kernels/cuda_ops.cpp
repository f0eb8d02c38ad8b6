#include "kernels/cuda_ops.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda/launch.h"

namespace retort::kernels::cuda {

namespace {

// Enqueues on the current stream of x's device; a launch that the device refuses is known here, not later.
template <class Kernel>
void launch(const at::Tensor& x, Kernel&& kernel) {
  const c10::cuda::CUDAGuard device(x.device());
  const Stream stream = c10::cuda::getCurrentCUDAStream(x.get_device()).stream();
  kernel(stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

Element element_of(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? Element::kF32 : Element::kBf16;
}

const void* data(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }
void* place(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }
float* floats(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr<float>() : nullptr; }

// Enough partial sums of a weight's gradient to fill the device, each over many rows.
constexpr int64_t kParts = 264;

}  // namespace

std::string load() {
  static const std::string why = []() -> std::string {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
    if (c10::cuda::device_count() == 0) return "no CUDA device";
    return at::hasCUDA() ? "" : "libtorch_cuda was loaded after a backward pass";
  }();
  return why;
}

bool takes(const at::Tensor& x) {
  return x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x_ND, const at::Tensor& w_D, double eps) {
  const int64_t width = x_ND.size(-1), rows = width > 0 ? x_ND.numel() / width : 0;
  at::Tensor y = at::empty_like(x_ND), rstd_N = at::empty({rows}, x_ND.options().dtype(at::kFloat));
  launch(x_ND, [&](Stream stream) {
    rms_norm(element_of(x_ND), data(x_ND), w_D.const_data_ptr<float>(), place(y), floats(rstd_N), rows, width,
             static_cast<float>(eps), stream);
  });
  return {y, rstd_N};
}

std::pair<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                    const at::Tensor& w_D, const at::Tensor& rstd_N) {
  const int64_t width = x_ND.size(-1), rows = rstd_N.size(0), parts = std::min(rows, kParts);
  at::Tensor dx = at::empty_like(x_ND), dw_PD = at::empty({parts, width}, rstd_N.options());
  launch(x_ND, [&](Stream stream) {
    rms_norm_backward(element_of(x_ND), data(dy_ND), data(x_ND), w_D.const_data_ptr<float>(),
                      rstd_N.const_data_ptr<float>(), place(dx), floats(dw_PD), parts, rows, width, stream);
  });
  return {dx, dw_PD.sum(0)};
}

at::Tensor gate(Gate kind, const at::Tensor& a, const at::Tensor& u) {
  at::Tensor y = at::empty_like(a);
  launch(a, [&](Stream stream) { gate(kind, element_of(a), data(a), data(u), place(y), a.numel(), stream); });
  return y;
}

std::pair<at::Tensor, at::Tensor> gate_backward(Gate kind, const at::Tensor& dy, const at::Tensor& a,
                                                const at::Tensor& u) {
  at::Tensor da = at::empty_like(a), du = u.defined() ? at::empty_like(u) : at::Tensor();
  launch(a, [&](Stream stream) {
    gate_backward(kind, element_of(a), data(dy), data(a), data(u), place(da), place(du), a.numel(), stream);
  });
  return {da, du};
}

at::Tensor cross_entropy_in_place(const at::Tensor& logits_CV, const at::Tensor& labels_C,
                                  bool want_gradient) {
  at::Tensor loss_C = at::empty({logits_CV.size(0)}, logits_CV.options().dtype(at::kFloat));
  launch(logits_CV, [&](Stream stream) {
    cross_entropy(element_of(logits_CV), place(logits_CV), labels_C.const_data_ptr<int64_t>(), floats(loss_C),
                  logits_CV.size(0), logits_CV.size(1), want_gradient, stream);
  });
  return loss_C;
}

at::Tensor cross_entropy(const at::Tensor& logits_CV, const at::Tensor& labels_C, double scale,
                         const at::Tensor& gradient_CV) {
  at::Tensor loss_C = at::empty({logits_CV.size(0)}, logits_CV.options());
  launch(logits_CV, [&](Stream stream) {
    cross_entropy_add(logits_CV.const_data_ptr<float>(), labels_C.const_data_ptr<int64_t>(), floats(loss_C),
                      floats(gradient_CV), static_cast<float>(scale), logits_CV.size(0), logits_CV.size(1),
                      stream);
  });
  return loss_C.sum();
}

at::Tensor forward_kl(const at::Tensor& student_CV, const at::Tensor& teacher_CV, double temperature,
                      double scale, const at::Tensor& gradient_CV) {
  at::Tensor loss_C = at::empty({student_CV.size(0)}, student_CV.options());
  launch(student_CV, [&](Stream stream) {
    forward_kl(student_CV.const_data_ptr<float>(), teacher_CV.const_data_ptr<float>(), floats(loss_C),
               floats(gradient_CV), static_cast<float>(scale), static_cast<float>(temperature),
               student_CV.size(0), student_CV.size(1), stream);
  });
  return loss_C.sum();
}

at::Tensor round_to_blocks(const at::Tensor& x, bool q8_0) {
  check(x.scalar_type() == at::kFloat && x.dim() > 0 && x.size(-1) % 32 == 0,
        "[round_to_blocks] x must be f32 with rows of whole blocks of 32, got {} {}",
        c10::toString(x.scalar_type()), format_shape(x.sizes()));
  const at::Tensor dense = x.contiguous();
  at::Tensor y = at::empty_like(dense);
  launch(dense, [&](Stream stream) {
    fake_quantize(q8_0 ? BlockFormat::kQ8_0 : BlockFormat::kQ4_0, dense.const_data_ptr<float>(), floats(y),
                  dense.numel(), stream);
  });
  return y;
}

}  // namespace retort::kernels::cuda
