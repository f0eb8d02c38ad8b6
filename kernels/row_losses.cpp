#include "kernels/row_losses.h"

#include "core/error.h"
#include "core/shape.h"

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

}  // namespace

RowLoss cross_entropy_rows() {
  return [](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    check_labels(rows.labels_C, rows.student_CV.size(1));
    const at::Tensor log_q = at::log_softmax(rows.student_CV, 1);
    const at::Tensor label = rows.labels_C.unsqueeze(1);
    if (gradient_CV.defined()) {
      gradient_CV.add_(log_q.exp(), scale);
      gradient_CV.scatter_add_(1, label, at::full({1, 1}, -scale, gradient_CV.options()).expand_as(label));
    }
    return log_q.gather(1, label).sum().neg();
  };
}

RowLoss forward_kl_rows(double temperature) {
  check<ConfigError>(temperature > 0, "[forward_kl] temperature must be > 0, got {}", temperature);
  return [temperature](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    check(rows.teacher_CV.defined(), "[forward_kl] needs a teacher, got none");
    const at::Tensor log_q = at::log_softmax(rows.student_CV / temperature, 1);
    const at::Tensor log_p = at::log_softmax(rows.teacher_CV / temperature, 1);
    const at::Tensor p = log_p.exp();
    if (gradient_CV.defined()) gradient_CV.add_(log_q.exp().sub_(p), scale * temperature);
    return (p * (log_p - log_q)).sum() * (temperature * temperature);
  };
}

at::Tensor cross_entropy_in_place(at::Tensor& logits_CV, const at::Tensor& labels_C, bool want_gradient) {
  at::Tensor gradient = want_gradient ? at::zeros_like(logits_CV) : at::Tensor();
  const at::Tensor sum = cross_entropy_rows()({logits_CV, {}, labels_C}, 1.0, gradient);
  if (want_gradient) logits_CV.copy_(gradient);
  return sum;
}

}  // namespace retort::kernels
