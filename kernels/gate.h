// The activations of a feed-forward network's gate, by the numbers that the CPU loops and the CUDA kernels
// use (kernels/activation.h has their formulas).
#pragma once

namespace retort::kernels {

enum class Gate { kSilu, kGeluTanh, kRelu2 };

}  // namespace retort::kernels
