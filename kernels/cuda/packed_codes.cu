// Values of what is kept as codes: 16 bytes of codes a thread. Each product and sum rounds alone, as on the CPU.
#include <cuda_fp16.h>

#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// Byte j of 16.
__device__ unsigned int byte_of(const uint4& bits, int j) {
  const unsigned int word = j < 4 ? bits.x : j < 8 ? bits.y : j < 12 ? bits.z : bits.w;
  return word >> (8 * (j % 4)) & 0xffu;
}
__device__ uint4 codes_of_thread(const void* codes, int64_t thread) {
  return __ldcs(static_cast<const uint4*>(codes) + thread);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    q8_0_kernel(const void* codes, const __half* scales, T* y, int64_t n) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, i = thread * 16;
  if (i >= n) return;
  const uint4 bits = codes_of_thread(codes, thread);
  const float d = __half2float(scales[i / 32]);
#pragma unroll
  for (int run = 0; run < 2; ++run) {
    float v[kRun];
#pragma unroll
    for (int j = 0; j < kRun; ++j)
      v[j] = __fmul_rn(d, static_cast<float>(static_cast<signed char>(byte_of(bits, run * kRun + j))));
    put(y + i + run * kRun, v);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    q4_0_kernel(const void* codes, const __half* scales, T* y, int64_t n) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, i = block * 32;
  if (i >= n) return;
  const uint4 bits = codes_of_thread(codes, block);
  const float d = __half2float(scales[block]);
#pragma unroll
  for (int run = 0; run < 4; ++run) {
    float v[kRun];
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      const unsigned int pair = byte_of(bits, run % 2 * kRun + j);
      v[j] = __fmul_rn(d, static_cast<float>(static_cast<int>(run < 2 ? pair & 15u : pair >> 4) - 8));
    }
    put(y + i + run * kRun, v);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) nf4_kernel(PackedBlocks packed, T* y, int64_t n) {
  auto& map = shared<float[16], struct Map>();
  if (threadIdx.x < 16) map[threadIdx.x] = packed.map[threadIdx.x];
  __syncthreads();
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, i = thread * 32;
  if (i >= n) return;
  const int64_t block = i / 64;
  const uint4 bits = codes_of_thread(packed.codes, thread);
  const float known = packed.sizes[static_cast<const unsigned char*>(packed.scales)[block]];
  const float size = __fadd_rn(__fmul_rn(known, packed.groups[block / 256]), packed.offset);
#pragma unroll
  for (int run = 0; run < 4; ++run) {
    float v[kRun];
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      const unsigned int pair = byte_of(bits, run * 4 + j / 2);
      v[j] = __fmul_rn(map[j % 2 == 0 ? pair >> 4 : pair & 15u], size);
    }
    const int64_t at = i + run * kRun;
    if (at + kRun <= n) {
      put(y + at, v);
    } else {
#pragma unroll
      for (int j = 0; j < kRun; ++j) {
        const float one[1] = {v[j]};
        if (at + j < n) put(y + at + j, one);
      }
    }
  }
}

void unpack(const PackedBlocks& packed, Element element, void* y, int64_t n, Stream stream) {
  if (n == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    T* const values = static_cast<T*>(y);
    const auto* const scales = static_cast<const __half*>(packed.scales);
    if (packed.form == PackedForm::kQ8_0)
      launch(q8_0_kernel<T>, {blocks_for(n, kThreads * 16), kThreads}, stream, packed.codes, scales, values,
             n);
    else if (packed.form == PackedForm::kQ4_0)
      launch(q4_0_kernel<T>, {blocks_for(n, kThreads * 32), kThreads}, stream, packed.codes, scales, values,
             n);
    else
      launch(nf4_kernel<T>, {blocks_for(n, kThreads * 32), kThreads}, stream, packed, values, n);
  });
}

}  // namespace

void add_packed_codes(Table& table) { table.unpack = unpack; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
