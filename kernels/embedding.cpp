#include "kernels/embedding.h"

#include <ATen/record_function.h>

#include "kernels/cuda_ops.h"

namespace retort::kernels {

at::Tensor embedding_backward(const at::Tensor& dy_ND, const at::Tensor& ids_N, int64_t rows) {
  const at::Tensor dy = dy_ND.contiguous();
  const cuda::Ops* const device = cuda::ops_for(dy);
  if (device == nullptr) return at::embedding_dense_backward(dy, ids_N, rows, /*padding_idx=*/-1, false);
  RECORD_USER_SCOPE_WITH_INPUTS("retort::embedding_backward", std::vector<c10::IValue>({dy, ids_N}));
  const at::Tensor dw_VD = at::zeros({rows, dy.size(-1)}, dy.options().dtype(at::kFloat));
  device->embedding_backward(dy.view({-1, dy.size(-1)}), ids_N.flatten(), dw_VD);
  return dw_VD;
}

}  // namespace retort::kernels
