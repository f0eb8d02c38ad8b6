#include "core/host_tensor.h"

#include "core/error.h"
#include "core/shape.h"

namespace retort {

void check_on_host(const at::Tensor& tensor, bool contiguous) {
  check<InternalError>(tensor.defined(), "[host_tensor] needs a tensor, got an undefined one");
  check<InternalError>(tensor.is_cpu(), "[host_tensor] needs a CPU tensor, got {} on {}",
                       format_shape(tensor.sizes()), tensor.device().str());
  check<InternalError>(contiguous ? tensor.is_contiguous() : tensor.is_non_overlapping_and_dense(),
                       "[host_tensor] needs a {} tensor, got {} with strides {}",
                       contiguous ? "contiguous" : "dense", format_shape(tensor.sizes()),
                       format_shape(tensor.strides()));
}

std::span<const std::byte> host_bytes(const at::Tensor& tensor) {
  check_on_host(tensor, /*contiguous=*/false);
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::span<std::byte> mutable_host_bytes(const at::Tensor& tensor) {
  check_on_host(tensor, /*contiguous=*/false);
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace retort
