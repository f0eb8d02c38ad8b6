// What this processor can do, found at run time: the same binary runs on AVX2 and AVX-512 machines. $RETORT_CPU has it
// taken for one of another kind, so that a machine can test what others run.
#pragma once

#include <string>

namespace retort {

struct CpuFeatures {
  bool avx2 = false, fma = false;
  bool avx512 = false;       // F, BW, DQ and VL
  bool avx512_bf16 = false;  // native bf16 dot products
  bool avx512_fp16 = false;
  bool amx_bf16 = false;
  bool intel = false;
  std::string model;  // "AMD EPYC 9B45", from /proc/cpuinfo
};

// $RETORT_CPU: avx2 hides AVX-512 and AMX, avx512 hides AMX, amx tells of AMX, whose products are LibTorch's and run
// without it too. ConfigError for another name.
CpuFeatures cpu_features();

}  // namespace retort
