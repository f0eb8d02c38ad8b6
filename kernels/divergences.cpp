#include "kernels/divergences.h"

#include "core/error.h"
#include "kernels/row_sums.h"

namespace retort::kernels {

namespace {

constexpr double kLogFloor = -87.0;

at::Tensor nothing(const at::Tensor& like) { return at::zeros({}, like.options()); }

// sum_j a_j log(a_j / b_j), 0 where a is.
at::Tensor kl(const at::Tensor& a, const at::Tensor& b) { return at::xlogy(a, a) - at::xlogy(a, b); }

// Per place: what it adds to the value, and q g.
struct Plain {
  at::Tensor value, pull;
};

// The share of |p - q| on the head of p, [C, 1].
at::Tensor forward_share(const at::Tensor& p, const at::Tensor& q) {
  const at::Tensor sorted = std::get<0>(at::sort(p, 1, true)), before = sorted.cumsum(1) - sorted;
  const at::Tensor least = at::where(before < 0.5, sorted, nothing(p) + 2.0).amin(1, true);
  const at::Tensor gap = (p - q).abs(), all = gap.sum(1, true);
  return at::where(all > 0, (gap * (p >= least)).sum(1, true) / all, nothing(p) + 0.5);
}

Plain plain_places(Divergence kind, double mix, const at::Tensor& log_p, const at::Tensor& log_q) {
  const at::Tensor p = log_p.exp(), q = log_q.exp();
  const auto reverse = [&] { return at::where(q > 0, q * (log_q - log_p.clamp_min(kLogFloor)), nothing(q)); };
  switch (kind) {
    case Divergence::kReverseKl: {
      const at::Tensor value = reverse();
      return {value, value};
    }
    case Divergence::kJsd: {
      const at::Tensor m = mix * p + (1 - mix) * q, of_q = (1 - mix) * kl(q, m);
      return {mix * kl(p, m) + of_q, of_q};
    }
    case Divergence::kSkewForwardKl: {
      const at::Tensor m = mix * p + (1 - mix) * q;
      return {kl(p, m), at::where(p > 0, (mix - 1) * q * p / m, nothing(q))};
    }
    case Divergence::kSkewReverseKl: {
      const at::Tensor m = (1 - mix) * p + mix * q, of_q = kl(q, m);
      return {of_q, of_q - at::where(q > 0, mix * q * q / m, nothing(q))};
    }
    case Divergence::kTotalVariation:
      return {0.5 * (p - q).abs(), 0.5 * q * (q - p).sign()};
    case Divergence::kAdaptiveKl:
      break;
  }
  const at::Tensor w = forward_share(p, q), backward = reverse();
  const at::Tensor covering = at::where(p > 0, p * (log_p - log_q), nothing(p));
  return {w * covering + (1 - w) * backward, (1 - w) * backward - w * p};
}

at::Tensor plain_divergence(Divergence kind, double mix, double temperature, const LogitRows& rows,
                            double scale, at::Tensor& gradient_CV) {
  const at::Tensor log_q = at::log_softmax(rows.common(rows.student_CV) / temperature, 1);
  const at::Tensor log_p = at::log_softmax(rows.teacher_CV / temperature, 1);
  const Plain places = plain_places(kind, mix, log_p, log_q);
  if (gradient_CV.defined())
    rows.common(gradient_CV).add_(places.pull - log_q.exp() * places.pull.sum(1, true), scale * temperature);
  return places.value.sum() * (temperature * temperature);
}

at::Tensor plain_logit_mse(const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
  const at::Tensor inside = rows.teacher_CV.ne(-INFINITY);
  const at::Tensor count = inside.sum(1, true);
  const at::Tensor d =
      at::where(inside, rows.common(rows.student_CV) - rows.teacher_CV, nothing(rows.student_CV));
  const at::Tensor centred = at::where(inside, d - d.sum(1, true) / count, nothing(d));
  if (gradient_CV.defined()) rows.common(gradient_CV).add_(centred / count, 2 * scale);
  return (centred.square() / count).sum();
}

cuda::RowLossKind on_device(Divergence kind) {
  switch (kind) {
    case Divergence::kReverseKl:
      return cuda::RowLossKind::kReverseKl;
    case Divergence::kJsd:
      return cuda::RowLossKind::kJsd;
    case Divergence::kSkewForwardKl:
      return cuda::RowLossKind::kSkewForwardKl;
    case Divergence::kSkewReverseKl:
      return cuda::RowLossKind::kSkewReverseKl;
    case Divergence::kTotalVariation:
      return cuda::RowLossKind::kTotalVariation;
    case Divergence::kAdaptiveKl:
      break;
  }
  return cuda::RowLossKind::kAdaptiveKl;
}

void check_mix(Divergence kind, double mix) {
  const bool mixes =
      kind == Divergence::kJsd || kind == Divergence::kSkewForwardKl || kind == Divergence::kSkewReverseKl;
  const double least = kind == Divergence::kSkewForwardKl ? 0.0 : 1e-6;
  check<ConfigError>(!mixes || (mix >= least && mix < 1),
                     "[divergence] alpha or beta must be in [{}, 1), got {}", least, mix);
}

}  // namespace

RowLoss divergence_rows(Divergence kind, double temperature, double mix) {
  check<ConfigError>(temperature > 0, "[divergence] temperature must be > 0, got {}", temperature);
  check_mix(kind, mix);
  const RowLoss::Kernel kernel{on_device(kind), temperature, mix};
  const auto add = [=](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    check(rows.teacher_CV.defined(), "[divergence] needs a teacher's logits, got none");
    if (device_rows(rows)) return device_sum(kernel, rows, scale, gradient_CV);
    if (!has_loops(rows, gradient_CV))
      return plain_divergence(kind, mix, temperature, rows, scale, gradient_CV);
    return sum_divergence(
        cpu::cpu_table().divergence,
        {kind, static_cast<float>(mix), static_cast<float>(temperature), static_cast<float>(scale), 0, 0, 0},
        rows, gradient_CV);
  };
  return RowLoss(add, kernel);
}

RowLoss logit_mse_rows() {
  const RowLoss::Kernel kernel{cuda::RowLossKind::kLogitMse};
  const auto add = [=](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    check(rows.teacher_CV.defined(), "[logit_mse] needs a teacher's logits, got none");
    if (device_rows(rows)) return device_sum(kernel, rows, scale, gradient_CV);
    if (!has_loops(rows, gradient_CV)) return plain_logit_mse(rows, scale, gradient_CV);
    return sum_divergence(cpu::cpu_table().logit_mse, {.scale = static_cast<float>(scale)}, rows,
                          gradient_CV);
  };
  return RowLoss(add, kernel);
}

}  // namespace retort::kernels
