// LibTorch's memory-efficient attention on the fake device: _efficient_attention_forward and its backward, which CUDA has and the
// CPU has not, in f64 on the host from the formula. Of what CUDA's take only kernels/attention.cpp's calls, and strictly (c10::Error):
// backward wants one block for the keys of a head, as several add to the queries' gradients in any order.
#pragma once

#include <cstdint>

namespace retort::testing {

struct EfficientCalls {
  int64_t forward = 0, backward = 0;
};
EfficientCalls efficient_calls();  // of all threads, since the program began

}  // namespace retort::testing
