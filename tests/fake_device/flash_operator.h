// LibTorch's flash attention on the fake device: _flash_attention_forward and its backward, which CUDA has and the CPU has
// not, in f64 on the host from the formula. Stricter than CUDA's about their arguments: what those kernels assume without
// looking is checked (c10::Error), that cumulative lengths rise from 0 to all tokens and none is above its bound among
// it, and backward wants LibTorch's deterministic algorithms, without which CUDA's adds up in any order.
#pragma once

#include <cstdint>

namespace retort::testing {

struct FlashCalls {
  int64_t forward = 0, backward = 0;
};
FlashCalls flash_calls();  // of all threads, since the program began

}  // namespace retort::testing
