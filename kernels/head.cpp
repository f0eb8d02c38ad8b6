#include "kernels/head.h"

#include "kernels/product.h"
#include "kernels/thin_product.h"

namespace retort::kernels {

at::Tensor Head::logits(const at::Tensor& h, at::ScalarType dtype) const {
  at::Tensor out = is_thin(h, weight_VD) ? thin_product(h, weight_VD)
                                         : linear_product(h.to(weight_VD.scalar_type()), weight_VD, {});
  out = out.to(dtype);
  cap(out);
  return out;
}

void Head::cap(at::Tensor& products) const {
  if (softcap > 0) products.div_(softcap).tanh_().mul_(softcap);
}

}  // namespace retort::kernels
