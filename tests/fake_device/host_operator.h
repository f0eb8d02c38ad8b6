// An operator of LibTorch on tensors of the device, done by the CPU's kernel in the device's memory.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <functional>

namespace retort::testing {

// The same values in the other mapping: a CPU tensor of x's sizes and strides.
at::Tensor on_host(const at::Tensor& x);

// The same of a tensor that work reads or writes now, or in a graph's replays.
at::Tensor input(const at::Tensor& x);
at::Tensor output(const at::Tensor& x);
// Does `work` as the device's own kernels do: while a graph is captured, nothing runs.
void enqueue(const at::Tensor& on, const std::function<void()>& work);

// Takes the arguments from the stack and leaves the results there, as a boxed kernel does; a use of them in the current
// stream, and work of the graph that captures it. Gives the device that they are on, if any are.
std::optional<at::Device> run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace retort::testing
