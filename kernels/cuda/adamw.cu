// The step of an optimizer: f64 sums of squares, one a chunk; the verdict on them; the update, one launch for all. The
// host reads none of it: whether the step is left out and what gradients are multiplied by are decided here. Sums are
// added in the order of kernels/gradient_norm.cpp and elements go through the operations of kernels/adamw.cpp, each
// rounded alone, so that the bits are the CPU's. A working copy is written with its master, cast or rounded to its grid.
#include "kernels/cuda/group_scales.cuh"

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

// A run of the chunk, with zeros past its end.
__device__ void get_or_zeros(const float* x, int64_t i, int64_t end, bool runs, float (&g)[kRun]) {
  if (runs && i + kRun <= end) return get(x + i, g);
#pragma unroll
  for (int j = 0; j < kRun; ++j) g[j] = i + j < end ? __ldca(x + i + j) : 0.0f;
}

// The squares are exact; element e is added to the sum e % (kThreads * kRun).
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const AdamTensor* tensors, const AdamChunk* chunks, double* squares) {
  static_assert(kAdamChunk == 2 * kThreads * kRun);
  const AdamChunk chunk = chunks[blockIdx.x];
  const AdamTensor t = tensors[chunk.tensor];
  const float* x = t.gradient + chunk.offset;
  const int64_t end = t.count - chunk.offset < kAdamChunk ? t.count - chunk.offset : kAdamChunk;
  float low[kRun], high[kRun];
  get_or_zeros(x, threadIdx.x * kRun, end, on_16(x), low);
  get_or_zeros(x, (kThreads + threadIdx.x) * kRun, end, on_16(x), high);
  double s[kRun];
#pragma unroll
  for (int j = 0; j < kRun; ++j)
    s[j] = static_cast<double>(low[j]) * low[j] + static_cast<double>(high[j]) * high[j];
  const double sum =
      over_group<Sum, kThreads>(((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// One block. Its threads add up the pieces of blocks of rows, the first of them those sums: a thousand an update of 30
// million parameters.
__global__ void __launch_bounds__(kThreads)
    judge_kernel(const double* pieces, const int64_t* ends, int64_t blocks, double* sums,
                 const double* losses, int64_t count, int64_t stride, double clip, Verdict* verdict) {
#pragma unroll 1
  for (int64_t b = threadIdx.x; b < blocks; b += kThreads) {
    double sum = 0.0;
#pragma unroll 1
    for (int64_t i = b == 0 ? 0 : ends[b - 1]; i < ends[b]; ++i) sum += pieces[i];
    sums[b] = sum;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  double sum = 0.0, loss = 0.0;
#pragma unroll 8
  for (int64_t b = 0; b < blocks; ++b) sum += sums[b];
#pragma unroll 1
  for (int64_t i = 0; i < count; ++i) loss += losses[i * stride];
  const double norm = sqrt(sum);
  verdict->norm = norm;
  verdict->factor = clip > 0.0 && norm > clip ? static_cast<float>(clip / norm) : 1.0f;
  verdict->go = isfinite(norm) && isfinite(loss) ? 1.0 : 0.0;
}

// One element; see kernels/adamw.h for the formula.
__device__ void update(float& p, float& m, float& v, float g, const AdamRates& r, float factor, float keep) {
  g = __fmul_rn(g, factor);
  m = __fmaf_rn(r.beta1, m, __fmul_rn(r.one_minus_beta1, g));
  v = __fmaf_rn(r.beta2, v, __fmul_rn(__fmul_rn(r.one_minus_beta2, g), g));
  const float divisor = __fmaf_rn(__fsqrt_rn(v), r.root, r.eps);
  p = __fmaf_rn(-r.step, __fdiv_rn(m, divisor), __fmul_rn(p, keep));
}

__global__ void __launch_bounds__(kThreads) update_kernel(const AdamTensor* tensors, const AdamChunk* chunks,
                                                          AdamRates rates, const Verdict* verdict) {
  if (verdict->go == 0.0) return;
  const auto factor = static_cast<float>(verdict->factor);
  const AdamChunk chunk = chunks[blockIdx.x];
  const AdamTensor t = tensors[chunk.tensor];
  const bool runs = on_16(t.master) && on_16(t.m) && on_16(t.v) && on_16(t.gradient) && on_16(t.working);
  over_chunk(t, chunk.offset, runs, [&](auto count, int64_t i) {
    constexpr int N = decltype(count)::value;
    float p[N], m[N], v[N], g[N];
    get_stream(t.master + i, p);
    get_stream(t.m + i, m);
    get_stream(t.v + i, v);
    get_stream(t.gradient + i, g);
#pragma unroll
    for (int j = 0; j < N; ++j) update(p[j], m[j], v[j], g[j], rates, factor, t.keep);
    put_stream(t.master + i, p);
    put_stream(t.m + i, m);
    put_stream(t.v + i, v);
    if (t.working != nullptr) put(static_cast<Bf16*>(t.working) + i, p);
  });
}

// The same where copies lie on a grid whose groups find their scales: all lanes make all passes, so that groups meet.
template <Fit kFit, int kLanes, class T>
__global__ void __launch_bounds__(kThreads)
    update_groups_kernel(const AdamTensor* tensors, const AdamChunk* chunks, AdamRates rates,
                         const Verdict* verdict, GridRule grid, float half_range) {
  if (verdict->go == 0.0) return;
  const auto factor = static_cast<float>(verdict->factor);
  const AdamChunk chunk = chunks[blockIdx.x];
  const AdamTensor t = tensors[chunk.tensor];
  const bool runs = on_16(t.gradient);
#pragma unroll 1
  for (int pass = 0; pass < kAdamChunk / (kThreads * kRun); ++pass) {
    const int64_t i = chunk.offset + (pass * kThreads + static_cast<int64_t>(threadIdx.x)) * kRun;
    float p[kRun] = {};
    if (i < t.count) {
      float m[kRun], v[kRun], g[kRun];
      get_stream(t.master + i, p);
      get_stream(t.m + i, m);
      get_stream(t.v + i, v);
      get_or_zeros(t.gradient, i, t.count, runs, g);
#pragma unroll
      for (int j = 0; j < kRun; ++j) update(p[j], m[j], v[j], g[j], rates, factor, t.keep);
      put_stream(t.master + i, p);
      put_stream(t.m + i, m);
      put_stream(t.v + i, v);
    }
    round_group<kFit, kLanes>(p, grid, half_range);
    if (i < t.count) put(static_cast<T*>(t.working) + i, p);
  }
}

void squares(const AdamTensor* tensors, const AdamChunk* chunks, int64_t count, double* squares,
             Stream stream) {
  if (count == 0) return;
  launch(squares_kernel, {static_cast<unsigned int>(count), kThreads}, stream, tensors, chunks, squares);
}

void judge(const double* pieces, const int64_t* ends, int64_t blocks, double* sums, const double* losses,
           int64_t count, int64_t stride, double clip, Verdict* verdict, Stream stream) {
  launch(judge_kernel, {1u, kThreads}, stream, pieces, ends, blocks, sums, losses, count, stride, clip,
         verdict);
}

void adamw(const AdamTensor* tensors, const AdamChunk* chunks, int64_t count, const AdamRates& rates,
           const Verdict* verdict, Stream stream) {
  if (count == 0) return;
  launch(update_kernel, {static_cast<unsigned int>(count), kThreads}, stream, tensors, chunks, rates,
         verdict);
}

void adamw_on_grid(const GroupGrid& grid, Element element, const AdamTensor* tensors, const AdamChunk* chunks,
                   int64_t count, const AdamRates& rates, const Verdict* verdict, Stream stream) {
  if (count == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    with_groups(grid.fit, grid.group, [&](auto fit, auto lanes) {
      launch(update_groups_kernel<decltype(fit)::value, decltype(lanes)::value, T>,
             {static_cast<unsigned int>(count), kThreads}, stream, tensors, chunks, rates, verdict, grid.rule,
             grid.half_range);
    });
  });
}

}  // namespace

void add_adamw(Table& table) {
  table.squares = squares;
  table.judge = judge;
  table.adamw = adamw;
  table.adamw_on_grid = adamw_on_grid;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
