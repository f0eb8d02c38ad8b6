// Tunes LibTorch to this CPU, and measures f32 and bf16 products for about 0.2 s, for the log and the share of the
// ceiling. f32 products go to the faster library: the wheel's MKL keeps to AVX2 on AMD, where the
// wheel's oneDNN uses AVX-512. The switch is LibTorch's own and keeps f32 accuracy on such CPUs; where oneDNN
// would compute in bf16 (AMX) it stays off. The processor decides, never a stopwatch, so that a run gives the
// same bits every time.
#pragma once

#include <string>

namespace retort::kernels {

struct CpuTuning {
  std::string fp32_library;  // "MKL" or "oneDNN"
  int threads = 1;
  double fp32_gflops = 0, bf16_gflops = 0;  // products of 1024 x 256 x 1024, all threads

  bool bf16_units = false, prefers_bf16 = false;  // of the processor (kernels/product.h)
  // "fp32 96 GF/s (MKL), bf16 190 GF/s, 2 threads"
  std::string summary() const;
};

// Once a process, from one thread, before others compute. Do not throw.
CpuTuning tune_cpu();
// Without the measurements, which take time that a short command has no use for; returns fp32_library.
std::string choose_products();

}  // namespace retort::kernels
