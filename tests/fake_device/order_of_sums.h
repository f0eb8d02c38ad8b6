// LibTorch's operators that on a GPU add floats in any order (by atomics, or by cub's running sum of a single row), so that runs
// would differ in bits: refused (c10::Error) wherever they come. Some do so quietly, some under LibTorch's deterministic
// algorithms alone have another kernel: a flag of the process, which a rank beside may have set (kernels/attention.cpp). The list is
// that of LibTorch 2.11's use_deterministic_algorithms(), without what a language model has no use for.
#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

namespace retort::testing {

void refuse_without_order(const c10::FunctionSchema& schema, const torch::jit::Stack& stack);

}  // namespace retort::testing
