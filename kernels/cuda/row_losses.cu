// Cross-entropy by itself, the squared difference of centred logits, and the choice among the kernels.
#include "kernels/cuda/row_losses.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

template <class T, int kLanes>
__global__ void __launch_bounds__(kLanes, 1) cross_entropy_kernel(RowLosses a) {
  const Row<T, kLanes> row(a);
  if (row.kind == Label::kIgnored) return row.leave_out(a);
  Online mine[1];
  sweep<kLanes, false, 2>(row.all(), [&](auto count, int64_t i) {
    float z[decltype(count)::value];
    get(row.z + i, z);
    mine[0].add(z, kLog2E);
  });
  Softmax s[1];
  joined<kLanes>(mine, {kLog2E}, s);
  row.write_cross_entropy(a, s[0]);
  if (!a.gradient) return;
  rewrite<kLanes>(row.all(), row.z, [&](const auto& z, int64_t i) {
    float out[std::extent_v<std::remove_reference_t<decltype(z)>>] = {};
    row.add_cross_entropy(s[0], z, i, out);
    put_stream(row.z + i, out);
  });
}

// The sums of add_differences() over a row's common columns. Cross-entropy's softmax comes from the same pass.
template <class T, int kLanes>
__device__ void differences_of(const Row<T, kLanes>& row, float (&sums)[2], Online (&student)[1]) {
  sweep<kLanes, false>(row.compared(), [&](auto count, int64_t i) {
    constexpr int N = decltype(count)::value;
    float z[N], t[N];
    get(row.z + i, z);
    get(row.teacher + i, t);
    add_differences(z, t, sums);
    if (row.labelled) student[0].add(z, kLog2E);
  });
  if (row.labelled)
    sweep<kLanes, false>(row.others(), [&](auto count, int64_t i) {
      float z[decltype(count)::value];
      get(row.z + i, z);
      student[0].add(z, kLog2E);
    });
}

// mean_j D_j^2 with D the difference of the centred rows.
template <class T, int kLanes>
__global__ void __launch_bounds__(kLanes, 1) logit_mse_kernel(RowLosses a) {
  const Row<T, kLanes> row(a);
  if (row.kind == Label::kIgnored) return row.leave_out(a);
  Online mine[1];
  float sums[2] = {0.0f, 0.0f};
  differences_of(row, sums, mine);
  over_group<Sum, kLanes>(sums);
  Softmax plain[1] = {};
  if (row.labelled) joined<kLanes>(mine, {kLog2E}, plain);
  const Softmaxes s{{}, {}, plain[0], true};
  const float share = 1.0f / sums[1], mean = sums[0] * share, factor = a.terms[0].weight * 2.0f * share;
  float square = 0.0f;
  sweep<kLanes, true>(row.compared(), [&](auto count, int64_t i) {
    constexpr int N = decltype(count)::value;
    float z[N], t[N], out[N];
    get(row.z + i, z);
    get_stream(row.teacher + i, t);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float d = centred(z[j], t[j], mean);
      square += d * d;
      out[j] = factor * d;
    }
    if (!a.gradient) return;
    row.add_cross_entropy(s, z, i, out);
    put_stream(row.z + i, out);
  });
  square = over_group<Sum, kLanes>(square);
  row.write_loss(a.terms[0], square * share);
  row.write_cross_entropy(a, s.plain);
  if (a.gradient) row.write_others(s);
}

void row_losses(Element element, const RowLosses& losses, Stream stream) {
  if (losses.rows == 0) return;
  if (losses.count > 1) return row_pairs(element, losses, stream);
  const RowLossKind kind = losses.count == 0 ? RowLossKind::kCrossEntropy : losses.terms[0].kind;
  if (kind == RowLossKind::kLabels) return sparse_losses(element, losses, stream);
  if (kind != RowLossKind::kCrossEntropy && kind != RowLossKind::kLogitMse)
    return divergences(element, losses, stream);
  with_row_kernel(element, losses.vocabulary, [&](auto* typed, auto lanes) {
    using T = std::remove_pointer_t<decltype(typed)>;
    constexpr int kLanes = decltype(lanes)::value;
    launch(kind == RowLossKind::kCrossEntropy ? cross_entropy_kernel<T, kLanes> : logit_mse_kernel<T, kLanes>,
           {static_cast<unsigned int>(losses.rows), kLanes}, stream, losses);
  });
}

}  // namespace

void add_row_losses(Table& table) { table.row_losses = row_losses; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
