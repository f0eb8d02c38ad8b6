// The memory of a tensor as a span, for code outside kernels/ and formats/: the one way there from a tensor
// to a pointer (tests/core/layers_test.cpp holds everybody to it). A tensor that may live on a device is
// copied by .cpu() first, so that the copy is in plain sight. Throws InternalError for a tensor that the host
// cannot read.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <span>
#include <type_traits>

namespace retort {

// The bytes of a dense CPU tensor, in whatever order its strides give them.
std::span<const std::byte> host_bytes(const at::Tensor& tensor);
std::span<std::byte> mutable_host_bytes(const at::Tensor& tensor);

// The elements of a contiguous CPU tensor: T is its element type, const for reading.
template <class T>
std::span<T> host_values(const at::Tensor& tensor);

// ---- Implementation

void check_on_host(const at::Tensor& tensor, bool contiguous);

template <class T>
std::span<T> host_values(const at::Tensor& tensor) {
  check_on_host(tensor, /*contiguous=*/true);
  const auto count = static_cast<size_t>(tensor.numel());
  if constexpr (std::is_const_v<T>)
    return {tensor.const_data_ptr<std::remove_const_t<T>>(), count};
  else
    return {tensor.mutable_data_ptr<T>(), count};
}

}  // namespace retort
