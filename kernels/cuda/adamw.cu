// AdamW over all parameters: f64 sums of squares, one a chunk; the norm, what follows from it, and the step's
// constants; the update, one launch for all. The host reads none of it: whether the step is left out (a norm
// that is not finite) and what gradients are multiplied by are decided here. Every element goes through the
// operations of kernels/adamw.cpp in their order, each rounded alone, so that the bits are the CPU's.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// f(run or one, i) over a chunk's elements, counted from the tensor's first; runs where its arrays lie so.
template <class F>
__device__ void over_chunk(const AdamTensor& t, int64_t offset, bool runs, F f) {
  const int64_t end = offset + kAdamChunk < t.count ? offset + kAdamChunk : t.count;
  const int64_t whole = runs ? offset + (end - offset) / kRun * kRun : offset;
#pragma unroll 2
  for (int64_t i = offset + static_cast<int64_t>(threadIdx.x) * kRun; i < whole; i += kThreads * kRun)
    f(std::integral_constant<int, kRun>(), i);
#pragma unroll 1
  for (int64_t i = whole + threadIdx.x; i < end; i += kThreads) f(std::integral_constant<int, 1>(), i);
}

__device__ bool on_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

__global__ void __launch_bounds__(kThreads)
    squares_kernel(const AdamTensor* tensors, const AdamChunk* chunks, double* squares) {
  const AdamChunk chunk = chunks[blockIdx.x];
  const AdamTensor t = tensors[chunk.tensor];
  double sum = 0.0;
  over_chunk(t, chunk.offset, on_16(t.gradient), [&](auto count, int64_t i) {
    float g[decltype(count)::value];
    get(t.gradient + i, g);
#pragma unroll
    for (const float x : g) sum += static_cast<double>(x) * static_cast<double>(x);
  });
  sum = over_group<Sum, kThreads>(sum);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

__device__ AdamRates rates_of(const AdamOptions& o, double steps, float factor) {
  return {static_cast<float>(o.beta1),
          static_cast<float>(1.0 - o.beta1),
          static_cast<float>(o.beta2),
          static_cast<float>(1.0 - o.beta2),
          static_cast<float>(o.lr / (1.0 - pow(o.beta1, steps))),
          static_cast<float>(1.0 / sqrt(1.0 - pow(o.beta2, steps))),
          static_cast<float>(o.eps),
          static_cast<float>(1.0 - o.lr * o.weight_decay),
          factor,
          1.0f};
}

// One block.
__global__ void __launch_bounds__(kThreads)
    figures_kernel(const double* squares, int64_t count, AdamOptions o, AdamFigures* figures,
                   AdamRates* rates) {
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += squares[i];
  sum = over_group<Sum, kThreads>(sum);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sum);
  figures->norm = norm;
  if (!isfinite(norm)) {
    figures->skipped += 1.0;
    rates->go = 0.0f;
    return;
  }
  figures->steps += 1.0;
  const bool over = o.clip > 0.0 && norm > o.clip;
  *rates = rates_of(o, figures->steps, over ? static_cast<float>(o.clip / norm) : 1.0f);
}

// One element; see kernels/adamw.h for the formula.
__device__ void update(float& p, float& m, float& v, float g, const AdamRates& r, float keep) {
  g = __fmul_rn(g, r.factor);
  m = __fmaf_rn(r.beta1, m, __fmul_rn(r.one_minus_beta1, g));
  v = __fmaf_rn(r.beta2, v, __fmul_rn(__fmul_rn(r.one_minus_beta2, g), g));
  const float divisor = __fmaf_rn(__fsqrt_rn(v), r.root, r.eps);
  p = __fmaf_rn(-r.step, __fdiv_rn(m, divisor), __fmul_rn(p, keep));
}

__global__ void __launch_bounds__(kThreads)
    update_kernel(const AdamTensor* tensors, const AdamChunk* chunks, const AdamRates* rates) {
  const AdamChunk chunk = chunks[blockIdx.x];
  const AdamTensor t = tensors[chunk.tensor];
  const AdamRates r = *rates;
  if (r.go == 0.0f) return;
  const float keep = t.decay != 0.0f ? r.keep : 1.0f;
  const bool runs = on_16(t.master) && on_16(t.m) && on_16(t.v) && on_16(t.gradient) && on_16(t.working);
  over_chunk(t, chunk.offset, runs, [&](auto count, int64_t i) {
    constexpr int N = decltype(count)::value;
    float p[N], m[N], v[N], g[N];
    get_stream(t.master + i, p);
    get_stream(t.m + i, m);
    get_stream(t.v + i, v);
    get_stream(t.gradient + i, g);
#pragma unroll
    for (int j = 0; j < N; ++j) update(p[j], m[j], v[j], g[j], r, keep);
    put_stream(t.master + i, p);
    put_stream(t.m + i, m);
    put_stream(t.v + i, v);
    if (t.working != nullptr) put(static_cast<Bf16*>(t.working) + i, p);
  });
}

void squares(const AdamTensor* tensors, const AdamChunk* chunks, int64_t count, double* squares,
             Stream stream) {
  if (count == 0) return;
  launch(squares_kernel, {static_cast<unsigned int>(count), kThreads}, stream, tensors, chunks, squares);
}

void adamw(const AdamTensor* tensors, const AdamChunk* chunks, int64_t count, const AdamOptions& options,
           const double* squares, int64_t parts, AdamFigures* figures, AdamRates* rates, Stream stream) {
  if (count == 0) return;
  launch(figures_kernel, {1u, kThreads}, stream, squares, parts, options, figures, rates);
  launch(update_kernel, {static_cast<unsigned int>(count), kThreads}, stream, tensors, chunks, rates);
}

}  // namespace

void add_adamw(Table& table) {
  table.squares = squares;
  table.adamw = adamw;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
