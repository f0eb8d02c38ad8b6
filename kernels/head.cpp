#include "kernels/head.h"

#include "kernels/product.h"

namespace retort::kernels {

at::Tensor Head::logits(const at::Tensor& h, at::ScalarType dtype) const {
  at::Tensor out = linear_product(h.to(weight_VD.scalar_type()), weight_VD, {}).to(dtype);
  cap(out);
  return out;
}

void Head::cap(at::Tensor& products) const {
  if (softcap > 0) products.div_(softcap).tanh_().mul_(softcap);
}

}  // namespace retort::kernels
