// Stands in for the toolkit's header of this name (see cuda_runtime.h): half as bits, conversions to nearest
// even by the compiler's own.
#pragma once

#include <cuda_runtime.h>

struct alignas(2) __half {
  unsigned short bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half a) { return static_cast<float>(std::bit_cast<_Float16>(a.bits)); }
inline __half __float2half_rn(float a) {
  if (a != a) return {0x7fff};
  return {std::bit_cast<unsigned short>(static_cast<_Float16>(a))};
}
inline __half __float2half(float a) { return __float2half_rn(a); }
inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
inline float2 __half22float2(__half2 a) { return {__half2float(a.x), __half2float(a.y)}; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half a) { return a.bits; }
