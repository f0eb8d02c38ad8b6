// From tensors to the CPU loops of table.h: which tensors they take, and their element type.
#pragma once

#include <ATen/ATen.h>

#include "kernels/cpu/table.h"

namespace retort::kernels::cpu {

inline bool has_loops(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// f(float{}) or f(Bf16{}) after x's dtype, which has_loops() accepted.
template <class F>
void with_elements(const at::Tensor& x, F f) {
  if (x.scalar_type() == at::kFloat)
    f(float{});
  else
    f(Bf16{});
}

template <class T>
const T* read(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* write(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Work items of `each` elements that are worth a thread.
inline int64_t grain(int64_t each) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, each)); }

}  // namespace retort::kernels::cpu
