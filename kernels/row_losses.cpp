#include "kernels/row_losses.h"

#include "core/error.h"
#include "kernels/cuda_ops.h"
#include "kernels/row_sums.h"

namespace retort::kernels {

namespace {

// On the CPU only: elsewhere the check would wait for the device.
void check_labels(const at::Tensor& labels_C, int64_t vocabulary) {
  if (!labels_C.is_cpu() || labels_C.numel() == 0) return;
  const auto [low, high] = at::aminmax(labels_C);
  check(low.item<int64_t>() >= 0 && high.item<int64_t>() < vocabulary,
        "[cross_entropy] labels must be {} or in [0, {}), got {} .. {}", kIgnoredLabel, vocabulary,
        low.item<int64_t>(), high.item<int64_t>());
}

// -log q_label of each row on a device; the gradient takes the logits' place.
at::Tensor device_cross_entropy(const at::Tensor& logits_CV, const at::Tensor& labels_C, bool want_gradient) {
  return cuda::ops_for(logits_CV)
      ->row_losses(logits_CV, {}, logits_CV.size(1), labels_C.contiguous(),
                   {{cuda::RowLossKind::kCrossEntropy}}, want_gradient)
      .squeeze(0);
}

// Of each row.
at::Tensor plain_cross_entropy(const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
  const at::Tensor log_q = at::log_softmax(rows.student_CV, 1), label = rows.labels_C.unsqueeze(1);
  if (gradient_CV.defined()) {
    gradient_CV.add_(log_q.exp(), scale);
    gradient_CV.scatter_add_(1, label, at::full({1, 1}, -scale, gradient_CV.options()).expand_as(label));
  }
  return log_q.gather(1, label).squeeze(1).neg();
}

at::Tensor plain_forward_kl(const LogitRows& rows, double temperature, double scale,
                            at::Tensor& gradient_CV) {
  const at::Tensor log_q = at::log_softmax(rows.common(rows.student_CV) / temperature, 1);
  const at::Tensor log_p = at::log_softmax(rows.teacher_CV / temperature, 1);
  const at::Tensor p = log_p.exp();
  if (gradient_CV.defined()) rows.common(gradient_CV).add_(log_q.exp().sub_(p), scale * temperature);
  return at::where(p > 0, p * (log_p - log_q), at::zeros({}, p.options())).sum() *
         (temperature * temperature);
}

}  // namespace

RowLoss cross_entropy_rows() {
  const RowLoss::Kernel kernel{cuda::RowLossKind::kCrossEntropy};
  const auto add = [=](const LogitRows& rows, double scale, at::Tensor& gradient_CV) -> at::Tensor {
    const at::Tensor& z = rows.student_CV;
    check_labels(rows.labels_C, z.size(1));
    if (device_rows(rows)) return device_sum(kernel, rows, scale, gradient_CV);
    if (!has_row_loops(z) || !z.is_contiguous()) return plain_cross_entropy(rows, scale, gradient_CV).sum();
    const at::Tensor labels = rows.labels_C.contiguous();
    return sum_rows(z.size(0), z.size(1), [&](int64_t begin, int64_t end, double* losses) {
      cpu::cpu_table().cross_entropy_add(read_row(z, begin), labels.const_data_ptr<int64_t>() + begin, losses,
                                         write_row(gradient_CV, begin), static_cast<float>(scale),
                                         end - begin, z.size(1));
    });
  };
  return RowLoss(add, kernel);
}

at::Tensor cross_entropy_in_place(at::Tensor& logits_CV, const at::Tensor& labels_C, bool want_gradient) {
  check_labels(labels_C, logits_CV.size(1));
  if (cuda::takes(logits_CV) && has_dense_rows(logits_CV))
    return device_cross_entropy(logits_CV, labels_C, want_gradient);
  if (!cpu::has_loops(logits_CV) || !logits_CV.is_contiguous()) {
    at::Tensor gradient = want_gradient ? at::zeros_like(logits_CV, at::kFloat) : at::Tensor();
    const at::Tensor losses = plain_cross_entropy({logits_CV.to(at::kFloat), {}, labels_C}, 1.0, gradient);
    if (want_gradient) logits_CV.copy_(gradient);
    return logits_CV.is_cpu() ? losses.to(at::kDouble) : losses;
  }
  const at::Tensor labels = labels_C.contiguous();
  at::Tensor losses;
  cpu::with_elements(logits_CV, [&](auto element) {
    using T = decltype(element);
    losses = each_row(logits_CV.size(0), logits_CV.size(1), [&](int64_t begin, int64_t end, double* out) {
      cpu::cpu_table().of<T>().cross_entropy(cpu::write<T>(logits_CV) + begin * logits_CV.size(1),
                                             labels.const_data_ptr<int64_t>() + begin, out, end - begin,
                                             logits_CV.size(1), want_gradient);
    });
  });
  return losses;
}

RowLoss forward_kl_rows(double temperature) {
  check<ConfigError>(temperature > 0, "[forward_kl] temperature must be > 0, got {}", temperature);
  const RowLoss::Kernel kernel{cuda::RowLossKind::kForwardKl, temperature};
  const auto add = [=](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    check(rows.teacher_CV.defined(), "[forward_kl] needs a teacher's logits, got none");
    if (device_rows(rows)) return device_sum(kernel, rows, scale, gradient_CV);
    if (!has_loops(rows, gradient_CV)) return plain_forward_kl(rows, temperature, scale, gradient_CV);
    return sum_divergence(
        cpu::cpu_table().forward_kl,
        {.temperature = static_cast<float>(temperature), .scale = static_cast<float>(scale)}, rows,
        gradient_CV);
  };
  return RowLoss(add, kernel);
}

}  // namespace retort::kernels
