// Shape checks with messages that name the operation, the tensor and both shapes:
//   [linear_cross_entropy] weight_VD must be [*, 64], got [1000, 32]
// A dimension of -1 takes anything. Throws ShapeError.
#pragma once

#include <ATen/ATen.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace retort {

std::string format_shape(at::IntArrayRef shape);  // "[2, 3]", with * for -1
void check_shape(std::string_view where, std::string_view name, const at::Tensor& tensor,
                 std::initializer_list<int64_t> expected);

}  // namespace retort
