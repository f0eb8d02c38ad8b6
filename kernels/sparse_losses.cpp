#include "kernels/sparse_losses.h"

#include "core/error.h"
#include "core/shape.h"
#include "kernels/row_sums.h"

namespace retort::kernels {

namespace {

constexpr double kLeastTail = 0x1p-24;

void check_labels(const SparseLabels& labels, int64_t rows, int64_t vocabulary) {
  constexpr const char* kWhere = "sparse_cross_entropy";
  check(labels.defined(), "[sparse_cross_entropy] needs labels, got none");
  check_shape(kWhere, "ids_NK", labels.ids_NK, {rows, -1});
  check_shape(kWhere, "weights_NK", labels.weights_NK, {rows, labels.ids_NK.size(1)});
  if (labels.rest_N.defined()) check_shape(kWhere, "rest_N", labels.rest_N, {rows});
  if (!labels.ids_NK.is_cpu() || labels.ids_NK.numel() == 0)
    return;  // elsewhere it would wait for the device
  const auto [low, high] = at::aminmax(labels.ids_NK);
  check(low.item<int64_t>() >= 0 && high.item<int64_t>() < vocabulary,
        "[sparse_cross_entropy] ids must lie in [0, {}), got {} .. {}", vocabulary, low.item<int64_t>(),
        high.item<int64_t>());
}

at::Tensor plain_sparse(const LogitRows& rows, const SparseLabels& labels, double temperature, double scale,
                        at::Tensor& gradient_CV) {
  const at::Tensor log_q = at::log_softmax(rows.common(rows.student_CV) / temperature, 1), q = log_q.exp();
  const at::Tensor weights = labels.weights_NK.to(q.scalar_type());
  at::Tensor sum = -(weights * log_q.gather(1, labels.ids_NK)).sum();
  at::Tensor mass = weights.sum(1, true), outside = at::zeros_like(mass), inside = at::zeros_like(weights);
  if (labels.rest_N.defined()) {
    const at::Tensor rest = labels.rest_N.to(q.scalar_type()).unsqueeze(1);
    // Padding points at id 0, which may be a label too: count labels, do not scatter their truth.
    const at::Tensor is_label =
        at::zeros_like(q).scatter_add_(1, labels.ids_NK, (weights > 0).to(q.scalar_type())) > 0;
    const at::Tensor tail = at::where(is_label, at::zeros({}, q.options()), q).sum(1, true);
    const at::Tensor clear = tail > kLeastTail, none = at::zeros({}, q.options());
    sum = sum - (rest * tail.clamp_min(kLeastTail).log()).sum();
    mass = mass + at::where(clear, rest, none);
    outside = at::where(clear, rest / tail, none);
    inside = at::where(weights > 0, q.gather(1, labels.ids_NK) * outside, none);
  }
  if (gradient_CV.defined()) {
    at::Tensor change = q * (mass - outside);
    change.scatter_add_(1, labels.ids_NK, inside - weights);
    rows.common(gradient_CV).add_(change, scale * temperature);
  }
  return sum * (temperature * temperature);
}

}  // namespace

RowLoss sparse_rows(std::function<SparseLabels(const LogitRows&)> labels_of, double temperature) {
  const auto add = [=](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    return sparse_cross_entropy(rows, labels_of(rows), temperature, scale, gradient_CV);
  };
  const auto checked = [=](const LogitRows& rows) {
    const SparseLabels labels = labels_of(rows);
    check_labels(labels, rows.student_CV.size(0), rows.common(rows.student_CV).size(1));
    return labels;
  };
  return RowLoss(
      add,
      RowLoss::Kernel{.kind = cuda::RowLossKind::kLabels, .temperature = temperature, .labels_of = checked});
}

at::Tensor sparse_cross_entropy(const LogitRows& rows, const SparseLabels& labels, double temperature,
                                double scale, at::Tensor& gradient_CV) {
  const at::Tensor student = rows.common(rows.student_CV);
  const int64_t vocabulary = student.size(1);
  check_labels(labels, student.size(0), vocabulary);
  if (device_rows(rows)) {
    const RowLoss::Kernel kernel{.kind = cuda::RowLossKind::kLabels,
                                 .temperature = temperature,
                                 .labels_of = [&](auto&) { return labels; }};
    return device_sum(kernel, rows, scale, gradient_CV);
  }
  const bool same_rows = !gradient_CV.defined() || gradient_CV.strides() == rows.student_CV.strides();
  if (!has_row_loops(student) || !same_rows)
    return plain_sparse(rows, labels, temperature, scale, gradient_CV);
  const at::Tensor ids = labels.ids_NK.contiguous(), weights = labels.weights_NK.to(at::kFloat).contiguous();
  const at::Tensor rest = labels.rest_N.defined() ? labels.rest_N.to(at::kFloat).contiguous() : at::Tensor();
  return sum_rows(student.size(0), vocabulary, [&](int64_t begin, int64_t end, double* losses) {
    std::vector<float> scratch(static_cast<size_t>(vocabulary));
    const cpu::SparseRows shape{static_cast<float>(temperature),
                                static_cast<float>(scale),
                                end - begin,
                                vocabulary,
                                student.stride(0),
                                ids.size(1)};
    cpu::cpu_table().sparse_cross_entropy(shape, read_row(student, begin),
                                          ids.const_data_ptr<int64_t>() + begin * ids.size(1),
                                          weights.const_data_ptr<float>() + begin * ids.size(1),
                                          rest.defined() ? rest.const_data_ptr<float>() + begin : nullptr,
                                          losses, write_row(gradient_CV, begin), scratch.data());
  });
}

}  // namespace retort::kernels
