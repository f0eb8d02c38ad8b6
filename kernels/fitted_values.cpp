#include "kernels/fitted_values.h"

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda_ops.h"

namespace retort::kernels {

void round_fitted(const at::Tensor& x, const ScaleFit& fit, const Rounding& rounding,
                  const at::Tensor& values) {
  const cuda::Ops* const ops = cuda::ops_for(x);
  check(ops != nullptr && x.scalar_type() == at::kFloat && cuda::ops_for(values) == ops,
        "[round_fitted] takes f32 on a device that has kernels, and f32 or bf16 for the values there; got {} "
        "and {}",
        x.toString(), values.toString());
  check(x.dim() == 2 && values.sizes() == x.sizes() && values.is_contiguous() &&
            x.size(1) % std::max<int64_t>(1, fit.group) == 0,
        "[round_fitted] x must be [rows, row] of whole groups of {}, and values dense and the same; got {} "
        "and {}",
        fit.group, format_shape(x.sizes()), format_shape(values.sizes()));
  if (x.numel() > 0) ops->fake_quantize(fit, rounding, x.contiguous(), values);
}

}  // namespace retort::kernels
