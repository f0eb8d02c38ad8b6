// Stands in for the CUDA toolkit's header of this name where g++ compiles .cu files: what the kernels of
// kernels/cuda use of the language, on emulated threads (tests/cuda_emulation/thread.h). Every function that
// waits for other threads knows the line that called it. A name that is missing here is a compiler's error:
// add it with CUDA's meaning.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/cuda_emulation/thread.h"

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

// --- vectors

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};
#define RETORT_VECTORS(name, element)                                    \
  struct alignas(2 * sizeof(element)) name##2 {                          \
    element x, y;                                                        \
  };                                                                     \
  struct alignas(std::min<size_t>(16, 4 * sizeof(element))) name##4 {    \
    element x, y, z, w;                                                  \
  };                                                                     \
  inline name##2 make_##name##2(element x, element y) { return {x, y}; } \
  inline name##4 make_##name##4(element x, element y, element z, element w) { return {x, y, z, w}; }
RETORT_VECTORS(char, signed char)
RETORT_VECTORS(uchar, unsigned char)
RETORT_VECTORS(short, short)
RETORT_VECTORS(ushort, unsigned short)
RETORT_VECTORS(int, int)
RETORT_VECTORS(uint, unsigned int)
RETORT_VECTORS(longlong, long long)
RETORT_VECTORS(float, float)
RETORT_VECTORS(double, double)
#undef RETORT_VECTORS

// --- the thread's place

#define threadIdx (::retort::emulation::view->thread)
#define blockIdx (::retort::emulation::view->block)
#define blockDim (::retort::emulation::view->threads)
#define gridDim (::retort::emulation::view->blocks)
constexpr int warpSize = 32;

using cudaStream_t = struct CUstream_st*;

// --- barriers and fences

using RetortWhere = ::retort::emulation::Where;
using RetortHere = ::retort::emulation::Here;

inline void __syncthreads(const RetortWhere& where = RetortHere::current()) {
  ::retort::emulation::block_barrier(::retort::emulation::Gather::kNone, 0, where);
}
inline int __syncthreads_count(int predicate, const RetortWhere& where = RetortHere::current()) {
  return ::retort::emulation::block_barrier(::retort::emulation::Gather::kCount, predicate, where);
}
inline int __syncthreads_and(int predicate, const RetortWhere& where = RetortHere::current()) {
  return ::retort::emulation::block_barrier(::retort::emulation::Gather::kAnd, predicate, where);
}
inline int __syncthreads_or(int predicate, const RetortWhere& where = RetortHere::current()) {
  return ::retort::emulation::block_barrier(::retort::emulation::Gather::kOr, predicate, where);
}
inline void __syncwarp(unsigned int mask = 0xffffffff, const RetortWhere& where = RetortHere::current()) {
  ::retort::emulation::in_warp(::retort::emulation::WarpOp::kSync, mask, 0, 0, where);
}
inline void __threadfence() { ::retort::emulation::memory_fence(); }
inline void __threadfence_block() { ::retort::emulation::memory_fence(); }
[[noreturn]] inline void __trap(const RetortWhere& where = RetortHere::current()) {
  ::retort::emulation::fail("__trap()", where);
}

// --- within a warp

namespace retort::emulation {

template <class T>
uint64_t bits_of(const T& x) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof(T));
  return bits;
}
template <class T>
T of_bits(uint64_t bits) {
  T x;
  __builtin_memcpy(&x, &bits, sizeof(T));
  return x;
}
template <class T>
T shuffled(unsigned int mask, const T& x, int source, bool inside, const Where& where) {
  return of_bits<T>(in_warp(WarpOp::kShuffle, mask, bits_of(x), inside ? source : lane(), where));
}
inline int segment(int width) { return lane() & ~(width - 1); }

}  // namespace retort::emulation

template <class T>
T __shfl_sync(unsigned int mask, T x, int source, int width = 32,
              const RetortWhere& where = RetortHere::current()) {
  const int from = ::retort::emulation::segment(width) | (source & (width - 1));
  return ::retort::emulation::shuffled(mask, x, from, true, where);
}
template <class T>
T __shfl_up_sync(unsigned int mask, T x, unsigned int distance, int width = 32,
                 const RetortWhere& where = RetortHere::current()) {
  const int from = ::retort::emulation::lane() - static_cast<int>(distance);
  return ::retort::emulation::shuffled(mask, x, from, from >= ::retort::emulation::segment(width), where);
}
template <class T>
T __shfl_down_sync(unsigned int mask, T x, unsigned int distance, int width = 32,
                   const RetortWhere& where = RetortHere::current()) {
  const int from = ::retort::emulation::lane() + static_cast<int>(distance);
  return ::retort::emulation::shuffled(mask, x, from, from < ::retort::emulation::segment(width) + width,
                                       where);
}
template <class T>
T __shfl_xor_sync(unsigned int mask, T x, int pattern, int width = 32,
                  const RetortWhere& where = RetortHere::current()) {
  const int from = ::retort::emulation::lane() ^ pattern;
  return ::retort::emulation::shuffled(mask, x, from, from < ::retort::emulation::segment(width) + width,
                                       where);
}

inline unsigned int __ballot_sync(unsigned int mask, int predicate,
                                  const RetortWhere& where = RetortHere::current()) {
  return static_cast<unsigned int>(::retort::emulation::in_warp(::retort::emulation::WarpOp::kBallot, mask,
                                                                predicate != 0 ? 1 : 0, 0, where));
}
inline int __any_sync(unsigned int mask, int predicate, const RetortWhere& where = RetortHere::current()) {
  return static_cast<int>(__ballot_sync(mask, predicate, where) != 0);
}
inline int __all_sync(unsigned int mask, int predicate, const RetortWhere& where = RetortHere::current()) {
  return static_cast<int>(__ballot_sync(mask, predicate, where) == mask);
}
inline unsigned int __activemask() { return ::retort::emulation::active_lanes(); }
template <class T>
unsigned int __match_any_sync(unsigned int mask, T x, const RetortWhere& where = RetortHere::current()) {
  return static_cast<unsigned int>(::retort::emulation::in_warp(::retort::emulation::WarpOp::kMatch, mask,
                                                                ::retort::emulation::bits_of(x), 0, where));
}
template <class T>
unsigned int __match_all_sync(unsigned int mask, T x, int* all,
                              const RetortWhere& where = RetortHere::current()) {
  *all = static_cast<int>(__match_any_sync(mask, x, where) == mask);
  return *all != 0 ? mask : 0;
}
// int and unsigned int alone, as in CUDA.
#define RETORT_REDUCE(name, op)                                                                            \
  template <class T>                                                                                       \
  T __reduce_##name##_sync(unsigned int mask, T x, const RetortWhere& where = RetortHere::current()) {     \
    static_assert(std::is_integral_v<T> && sizeof(T) == 4);                                                \
    return static_cast<T>(::retort::emulation::in_warp(                                                    \
        ::retort::emulation::WarpOp::op, mask, static_cast<uint64_t>(static_cast<int64_t>(x)), 0, where)); \
  }
RETORT_REDUCE(add, kAdd)
RETORT_REDUCE(min, kMin)
RETORT_REDUCE(max, kMax)
RETORT_REDUCE(and, kAnd)
RETORT_REDUCE(or, kOr)
RETORT_REDUCE(xor, kXor)
#undef RETORT_REDUCE

// --- atomics: relaxed, as CUDA's

namespace retort::emulation {

// Replaces *p by f(*p); gives what was there.
template <class T, class F>
T atomically(T* p, F f, const Where& where) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  static_assert(sizeof(T) == sizeof(Bits));
  check_aligned(p, sizeof(T), where);
  auto* const word = reinterpret_cast<Bits __attribute__((may_alias))*>(p);
  Bits before = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    const Bits after = std::bit_cast<Bits>(static_cast<T>(f(std::bit_cast<T>(before))));
    if (__atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return std::bit_cast<T>(before);
  }
}

}  // namespace retort::emulation

#define RETORT_ATOMIC(name, expression)                                                       \
  template <class T>                                                                          \
  T name(T* p, std::type_identity_t<T> x, const RetortWhere& where = RetortHere::current()) { \
    return ::retort::emulation::atomically(                                                   \
        p, [&](T old) -> T { return expression; }, where);                                    \
  }
RETORT_ATOMIC(atomicAdd, old + x)
RETORT_ATOMIC(atomicSub, old - x)
RETORT_ATOMIC(atomicExch, ((void)old, x))
RETORT_ATOMIC(atomicMin, x < old ? x : old)
RETORT_ATOMIC(atomicMax, x > old ? x : old)
RETORT_ATOMIC(atomicAnd, old& x)
RETORT_ATOMIC(atomicOr, old | x)
RETORT_ATOMIC(atomicXor, old ^ x)
RETORT_ATOMIC(atomicInc, old >= x ? 0 : old + 1)
RETORT_ATOMIC(atomicDec, old == 0 || old > x ? x : old - 1)
#undef RETORT_ATOMIC
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired,
            const RetortWhere& where = RetortHere::current()) {
  return ::retort::emulation::atomically(
      p, [&](T old) { return old == expected ? desired : old; }, where);
}

// --- loads and stores with a cache hint

#define RETORT_LOAD(name)                                                \
  template <class T>                                                     \
  T name(const T* p, const RetortWhere& where = RetortHere::current()) { \
    ::retort::emulation::check_aligned(p, sizeof(T), where);             \
    return *p;                                                           \
  }
RETORT_LOAD(__ldg)
RETORT_LOAD(__ldca)
RETORT_LOAD(__ldcg)
RETORT_LOAD(__ldcs)
RETORT_LOAD(__ldlu)
#undef RETORT_LOAD
#define RETORT_STORE(name)                                                                       \
  template <class T>                                                                             \
  void name(T* p, std::type_identity_t<T> x, const RetortWhere& where = RetortHere::current()) { \
    ::retort::emulation::check_aligned(p, sizeof(T), where);                                     \
    *p = x;                                                                                      \
  }
RETORT_STORE(__stwb)
RETORT_STORE(__stcg)
RETORT_STORE(__stcs)
RETORT_STORE(__stwt)
#undef RETORT_STORE

// --- arithmetic. These sources are compiled without contraction, so each operation rounds by itself.

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float rsqrtf(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __log2f(float a) { return std::log2(a); }
// Up to two units of the last place off, as a device's may be, by an amount that follows from the operands; 0 where
// the divisor is too large for a device.
inline float __fdividef(float a, float b) {
  if (std::abs(b) > 0x1p126f && std::isfinite(b)) return a * 0.0f;
  const float quotient = a / b;
  if (!std::isnormal(quotient)) return quotient;
  const uint32_t mixed =
      (std::bit_cast<uint32_t>(a) * 0x9e3779b9u ^ std::bit_cast<uint32_t>(b)) * 0x85ebca6bu;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(quotient) + (mixed >> 16) % 5 - 2);
}
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline int __float2int_rz(float a) { return static_cast<int>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline unsigned int __float_as_uint(float a) { return std::bit_cast<unsigned int>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline float __uint_as_float(unsigned int a) { return std::bit_cast<float>(a); }
inline long long __double_as_longlong(double a) { return std::bit_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }
inline int __popc(unsigned int a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned int>(a)); }
inline int __ffs(int a) { return a == 0 ? 0 : std::countr_zero(static_cast<unsigned int>(a)) + 1; }
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int by) {
  return static_cast<unsigned int>((static_cast<uint64_t>(high) << 32 | low) >> (by & 31));
}
inline unsigned int __brev(unsigned int a) {
  unsigned int out = 0;
  for (int i = 0; i < 32; ++i) out |= (a >> i & 1u) << (31 - i);
  return out;
}
