// What this processor can do, found at run time: the same binary runs on AVX2 and AVX-512 machines.
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

CpuFeatures cpu_features();

}  // namespace retort
