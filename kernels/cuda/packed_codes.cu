// Values of what is kept as codes. A lane makes runs of 8, each of which goes on where its neighbour's ends, and reads
// what it needs for all of them before it writes the first. Each product and sum rounds alone, as on the CPU.
#include <cuda_fp16.h>

#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

constexpr int kRuns = 4;  // of a lane, a block's apart

// Byte j of 8.
__device__ unsigned int byte_of(const uint2& bits, int j) {
  return (j < 4 ? bits.x : bits.y) >> (8 * (j % 4)) & 0xffu;
}

// Of a form: read() gives what the run of that number is made of, values() makes it.
struct Blocks {
  static constexpr bool kWholeRuns = true;
  const uint2* codes;
  const __half* scales;  // of 4 runs
  struct Run {
    uint2 bits;
    __half scale;
  };
  __device__ void begin() const {}
};

struct Q8_0 : Blocks {
  __device__ Run read(uint64_t run) const { return {__ldcs(codes + run), scales[run / 4]}; }
  __device__ void values(const Run& read, uint64_t, float (&v)[kRun]) const {
    const float d = __half2float(read.scale);
#pragma unroll
    for (int j = 0; j < kRun; ++j)
      v[j] = __fmul_rn(d, static_cast<float>(static_cast<signed char>(byte_of(read.bits, j))));
  }
};

// The low halves of a block's 16 bytes are its first two runs.
struct Q4_0 : Blocks {
  __device__ Run read(uint64_t run) const { return {__ldcs(codes + run / 4 * 2 + run % 2), scales[run / 4]}; }
  __device__ void values(const Run& read, uint64_t run, float (&v)[kRun]) const {
    const float d = __half2float(read.scale);
    const int shift = run % 4 < 2 ? 0 : 4;
    const uint2 halves = {read.bits.x >> shift & 0x0f0f0f0fu, read.bits.y >> shift & 0x0f0f0f0fu};
#pragma unroll
    for (int j = 0; j < kRun; ++j)
      v[j] = __fmul_rn(d, static_cast<float>(static_cast<int>(byte_of(halves, j)) - 8));
  }
};

// Values of any number.
struct Nf4 {
  static constexpr bool kWholeRuns = false;
  PackedBlocks packed;
  struct Run {
    unsigned int bits;
    float size;
  };
  struct Map;
  __device__ void begin() const {
    auto& map = shared<float[16], Map>();
    if (threadIdx.x < 16) map[threadIdx.x] = packed.map[threadIdx.x];
    __syncthreads();
  }
  __device__ Run read(uint64_t run) const {
    const uint64_t block = run / 8;
    const float known = packed.sizes[static_cast<const unsigned char*>(packed.scales)[block]];
    return {__ldcs(static_cast<const unsigned int*>(packed.codes) + run),
            __fadd_rn(__fmul_rn(known, packed.groups[block / 256]), packed.offset)};
  }
  __device__ void values(const Run& read, uint64_t, float (&v)[kRun]) const {
    const auto& map = shared<float[16], Map>();
#pragma unroll
    for (int j = 0; j < kRun; ++j)
      v[j] = __fmul_rn(map[read.bits >> (8 * (j / 2) + (j % 2 == 0 ? 4 : 0)) & 15u], read.size);
  }
};

template <class Form, class T>
__global__ void __launch_bounds__(kThreads) unpack_kernel(Form form, T* y, int64_t n) {
  form.begin();
  const uint64_t first = static_cast<uint64_t>(blockIdx.x) * kThreads * kRuns + threadIdx.x;
  const uint64_t last = static_cast<uint64_t>(n - 1) / kRun;  // is read again past the end, without a branch
  typename Form::Run read[kRuns];
#pragma unroll
  for (int k = 0; k < kRuns; ++k)
    read[k] = form.read(first + k * kThreads < last ? first + k * kThreads : last);
#pragma unroll
  for (int k = 0; k < kRuns; ++k) {
    const uint64_t run = first + k * kThreads;
    if (run > last) return;
    float v[kRun];
    form.values(read[k], run, v);
    const auto i = static_cast<int64_t>(run * kRun);
    if (Form::kWholeRuns || i + kRun <= n) {
      put(y + i, v);
      continue;
    }
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      const float one[1] = {v[j]};
      if (i + j < n) put(y + i + j, one);
    }
  }
}

template <class Form, class T>
void unpack_as(const Form& form, T* y, int64_t n, Stream stream) {
  launch(unpack_kernel<Form, T>, {blocks_for(n, kThreads * kRuns * kRun), kThreads}, stream, form, y, n);
}

void unpack(const PackedBlocks& packed, Element element, void* y, int64_t n, Stream stream) {
  if (n == 0) return;
  const Blocks blocks{static_cast<const uint2*>(packed.codes), static_cast<const __half*>(packed.scales)};
  with_element(element, [&](auto* typed) {
    auto* const values = static_cast<decltype(typed)>(y);
    if (packed.form == PackedForm::kQ8_0)
      unpack_as(Q8_0{blocks}, values, n, stream);
    else if (packed.form == PackedForm::kQ4_0)
      unpack_as(Q4_0{blocks}, values, n, stream);
    else
      unpack_as(Nf4{packed}, values, n, stream);
  });
}

}  // namespace

void add_packed_codes(Table& table) { table.unpack = unpack; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
