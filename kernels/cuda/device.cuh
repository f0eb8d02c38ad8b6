// What the kernels of this folder share: elements in f32 and bf16, runs of them in 16-byte accesses, and
// joins over lanes, warps and blocks in an order that depends on nothing but the shape.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/table.h"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

using Bf16 = __nv_bfloat16;

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned int kAllLanes = 0xffffffff;
constexpr int kRun = 8;   // elements of a run: 16 bytes of bf16, twice 16 of f32
constexpr int kFour = 4;  // of a run of f32 in one access

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __bfloat162float(x); }

// --- runs. Of one element: anywhere; of more: p is a multiple of their bytes, up to 16. Streams are read or written
// once: they leave the cache to others. A run of kRun floats is two accesses, each to half of every sector of 32 bytes:
// kernels that write f32 above all give a lane kFour. Plain loads of vectors would come out in halves, and those through
// pointers that were themselves loaded would not know that they go to global memory: hence the intrinsics.

__device__ inline void unpack(const uint4& bits, float (&x)[kRun]) {
  const unsigned int words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ inline unsigned int pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<unsigned int>(__bfloat16_as_ushort(pair.x)) |
         static_cast<unsigned int>(__bfloat16_as_ushort(pair.y)) << 16;
}
__device__ inline uint4 pack(const float (&x)[kRun]) {
  return make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
}

__device__ inline void get(const Bf16* p, float (&x)[kRun]) {
  unpack(__ldca(reinterpret_cast<const uint4*>(p)), x);
}
__device__ inline void get_stream(const Bf16* p, float (&x)[kRun]) {
  unpack(__ldcs(reinterpret_cast<const uint4*>(p)), x);
}
__device__ inline void put(Bf16* p, const float (&x)[kRun]) { __stwb(reinterpret_cast<uint4*>(p), pack(x)); }
__device__ inline void put_stream(Bf16* p, const float (&x)[kRun]) {
  __stcs(reinterpret_cast<uint4*>(p), pack(x));
}

__device__ inline void spread(const float4& low, const float4& high, float (&x)[kRun]) {
  x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
  x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}
__device__ inline void get(const float* p, float (&x)[kRun]) {
  const auto* q = reinterpret_cast<const float4*>(p);
  const float4 low = __ldca(q), high = __ldca(q + 1);
  spread(low, high, x);
}
__device__ inline void get_stream(const float* p, float (&x)[kRun]) {
  const auto* q = reinterpret_cast<const float4*>(p);
  const float4 low = __ldcs(q), high = __ldcs(q + 1);
  spread(low, high, x);
}
__device__ inline void put(float* p, const float (&x)[kRun]) {
  auto* q = reinterpret_cast<float4*>(p);
  __stwb(q, make_float4(x[0], x[1], x[2], x[3]));
  __stwb(q + 1, make_float4(x[4], x[5], x[6], x[7]));
}
__device__ inline void put_stream(float* p, const float (&x)[kRun]) {
  auto* q = reinterpret_cast<float4*>(p);
  __stcs(q, make_float4(x[0], x[1], x[2], x[3]));
  __stcs(q + 1, make_float4(x[4], x[5], x[6], x[7]));
}

__device__ inline void get_stream(const float* p, float (&x)[kFour]) {
  const float4 v = __ldcs(reinterpret_cast<const float4*>(p));
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
__device__ inline void put(float* p, const float (&x)[kFour]) {
  __stwb(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
}
__device__ inline void put(Bf16* p, const float (&x)[kFour]) {
  __stwb(reinterpret_cast<uint2*>(p), make_uint2(pack(x[0], x[1]), pack(x[2], x[3])));
}
__device__ inline void put_stream(float* p, const float (&x)[kFour]) {
  __stcs(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
}

template <class T>
__device__ void get(const T* p, float (&x)[1]) {
  x[0] = to_float(__ldca(p));
}
template <class T>
__device__ void get_stream(const T* p, float (&x)[1]) {
  get(p, x);
}
__device__ inline void put(float* p, const float (&x)[1]) { __stwb(p, x[0]); }
__device__ inline void put(Bf16* p, const float (&x)[1]) { __stwb(p, __float2bfloat16_rn(x[0])); }
template <class T>
__device__ void put_stream(T* p, const float (&x)[1]) {
  put(p, x);
}

// Whether runs of kRun may be used from `p` on.
template <class... P>
bool aligned(const P*... p) {
  return ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...);
}

// --- joins

struct Sum {
  __device__ static float join(float a, float b) { return a + b; }
  __device__ static double join(double a, double b) { return a + b; }
};
struct Max {
  __device__ static float join(float a, float b) { return fmaxf(a, b); }
};

// Joins each value over runs of `kLanes` neighbouring lanes of a warp; all of them get the result, the same
// bits: every lane adds the same pairs.
template <class Join, int kLanes, class V, int n>
__device__ void over_lanes(V (&values)[n]) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
#pragma unroll
    for (int i = 0; i < n; ++i)
      values[i] = Join::join(values[i], __shfl_xor_sync(kAllLanes, values[i], offset));
}

// Joins each value over the `kLanes` threads that work on one thing: up to a warp, or the whole block of a
// power of two of warps.
template <class Join, int kLanes, class V, int n>
__device__ void over_group(V (&values)[n]) {
  over_lanes<Join, (kLanes < kWarp ? kLanes : kWarp)>(values);
  if constexpr (kLanes > kWarp) {
    constexpr int kWarps = kLanes / kWarp;
    auto& of_warp = shared<V[n][kWarps], struct OverGroup>();
    __syncthreads();  // an earlier call's readers are done
#pragma unroll
    for (int i = 0; i < n; ++i)
      if (threadIdx.x % kWarp == 0) of_warp[i][threadIdx.x / kWarp] = values[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < n; ++i) values[i] = of_warp[i][threadIdx.x % kWarps];
    over_lanes<Join, kWarps>(values);
  }
}
template <class Join, int kLanes, class V>
__device__ V over_group(V value) {
  V values[1] = {value};
  over_group<Join, kLanes>(values);
  return values[0];
}

// --- on the host

// Calls f with a typed null pointer after the element.
template <class F>
void with_element(Element element, F f) {
  if (element == Element::kF32)
    f(static_cast<float*>(nullptr));
  else
    f(static_cast<Bf16*>(nullptr));
}

inline unsigned int blocks_for(int64_t n, int64_t of_block = kThreads) {
  constexpr int64_t kMost = 0x7fffffff;
  const int64_t blocks = (n + of_block - 1) / of_block;
  return static_cast<unsigned int>(blocks < kMost ? blocks : kMost);
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
