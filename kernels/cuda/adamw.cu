// The step of an optimizer: f64 sums of squares, one a chunk; the verdict on them; the update, one launch for all. The
// host reads none of it: whether the step is left out and what gradients are multiplied by are decided here. Sums are
// added in the order of kernels/gradient_norm.cpp and elements go through the operations of kernels/adamw.cpp, each
// rounded alone, so that the bits are the CPU's. A working copy is written with its master, cast or rounded to its grid.
#include "kernels/cuda/group_scales.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

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

// N elements of a tensor, from number i on. Of four, the neighbouring lanes' go on with the next.
template <int N>
struct Elements {
  float p[N] = {}, m[N], v[N], g[N];

  __device__ void load(const AdamTensor& t, int i, bool aligned_gradient) {
    get_stream(t.master + i, p);
    get_stream(t.m + i, m);
    get_stream(t.v + i, v);
    if (aligned_gradient) return get_stream(t.gradient + i, g);
#pragma unroll
    for (int j = 0; j < N; ++j) g[j] = __ldca(t.gradient + i + j);
  }
  __device__ void update_and_store(const AdamTensor& t, int i, const AdamRates& rates, float factor) {
#pragma unroll
    for (int j = 0; j < N; ++j) update(p[j], m[j], v[j], g[j], rates, factor, t.keep);
    put_stream(t.master + i, p);
    put_stream(t.m + i, m);
    put_stream(t.v + i, v);
  }
};

// What the lanes of a block take at once. They take two of these, all loads before the first store: the compiler moves
// no load before a store.
constexpr int kPass = kThreads * kFour;
static_assert(kAdamChunk % (2 * kPass) == 0);

// A chunk's elements as a tensor of their own, whose working copy is T's.
template <class T>
__device__ AdamTensor part_of(const AdamTensor* tensors, const AdamChunk& chunk) {
  AdamTensor t = tensors[chunk.tensor];
  t.master += chunk.offset, t.m += chunk.offset, t.v += chunk.offset, t.gradient += chunk.offset;
  if (t.working != nullptr) t.working = static_cast<T*>(t.working) + chunk.offset;
  t.count = t.count - chunk.offset < kAdamChunk ? t.count - chunk.offset : kAdamChunk;
  return t;
}

template <int N>
__device__ void write_working(const AdamTensor& t, int i, const float (&p)[N]) {
  if (t.working != nullptr) put(static_cast<Bf16*>(t.working) + i, p);
}

__global__ void __launch_bounds__(kThreads) update_kernel(const AdamTensor* tensors, const AdamChunk* chunks,
                                                          AdamRates rates, const Verdict* verdict) {
  if (verdict->go == 0.0) return;
  const auto factor = static_cast<float>(verdict->factor);
  const AdamTensor t = part_of<Bf16>(tensors, chunks[blockIdx.x]);
  const bool fours = on_16(t.master) && on_16(t.m) && on_16(t.v) && on_16(t.gradient) && on_16(t.working);
  const int count = static_cast<int>(t.count), whole = fours ? count / kFour * kFour : 0;
#pragma unroll 1
  for (int i = threadIdx.x * kFour; i < whole; i += 2 * kPass) {
    Elements<kFour> low, high;
    const bool two = i + kPass < whole;
    low.load(t, i, true);
    if (two) high.load(t, i + kPass, true);
    low.update_and_store(t, i, rates, factor);
    write_working(t, i, low.p);
    if (!two) continue;
    high.update_and_store(t, i + kPass, rates, factor);
    write_working(t, i + kPass, high.p);
  }
#pragma unroll 1
  for (int i = whole + threadIdx.x; i < count; i += kThreads) {
    Elements<1> one;
    one.load(t, i, true);
    one.update_and_store(t, i, rates, factor);
    write_working(t, i, one.p);
  }
}

// The same where copies lie on a grid whose groups find their scales: all lanes make all passes, so that groups meet.
template <Fit kFit, int kLanes, class T>
__global__ void __launch_bounds__(kThreads, 4)  // else ptxas takes the registers of one of them
    update_groups_kernel(const AdamTensor* tensors, const AdamChunk* chunks, AdamRates rates,
                         const Verdict* verdict, GridRule grid, float half_range) {
  if (verdict->go == 0.0) return;
  const auto factor = static_cast<float>(verdict->factor);
  const AdamTensor t = part_of<T>(tensors, chunks[blockIdx.x]);
  const bool aligned_gradient = on_16(t.gradient);
  const int count = static_cast<int>(t.count);
#pragma unroll 1
  for (int first = threadIdx.x * kFour; first < kAdamChunk; first += 2 * kPass) {
    Elements<kFour> both[2];
#pragma unroll
    for (int k = 0; k < 2; ++k)
      if (const int i = first + k * kPass; i < count) both[k].load(t, i, aligned_gradient);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int i = first + k * kPass;
      if (i < count) both[k].update_and_store(t, i, rates, factor);
      round_group<kFit, kLanes>(both[k].p, grid, half_range);
      if (i < count) put(static_cast<T*>(t.working) + i, both[k].p);
    }
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
    with_groups<kFour>(grid.fit, grid.group, [&](auto fit, auto lanes) {
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
