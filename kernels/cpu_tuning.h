// What a process does once, before it computes on a CPU:
//   - sends f32 products to the faster library. The wheel's MKL keeps to AVX2 on AMD, where oneDNN, which the
//     wheel brings too, uses AVX-512. The switch is LibTorch's own and keeps f32 accuracy on such CPUs; where
//     oneDNN would compute in bf16 (AMX) it is left alone. The choice follows the processor, never a
//     stopwatch, so that a run gives the same bits every time.
//   - measures both precisions for about 0.2 s, for the log and for `precision: auto`.
// Call it from one thread before others compute. Does not throw.
#pragma once

#include <string>

namespace retort::kernels {

struct CpuTuning {
  std::string fp32_library;  // "MKL" or "oneDNN"
  int threads = 1;
  double fp32_gflops = 0, bf16_gflops = 0;  // products of 1024 x 256 x 1024, all threads

  // bf16 products pay: the processor has units for them and they are measurably faster.
  bool bf16_units = false;
  bool prefers_bf16() const { return bf16_units && bf16_gflops > 1.2 * fp32_gflops; }
  // "fp32 96 GF/s (MKL), bf16 190 GF/s, 2 threads"
  std::string summary() const;
};

CpuTuning tune_cpu();

}  // namespace retort::kernels
