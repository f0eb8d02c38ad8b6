// Divergences of a student's distribution q from a teacher's p, as terms of linear_distill
// (kernels/linear_loss.h), and the squared difference of their logits, over the U tokens in common. p and q
// are tempered by T; the loss is multiplied by T^2. One kernel serves all: with g_j = dD/dq_j, d/dz_j = T q_j
// (g_j - sum_i q_i g_i). docs/distillation.md has all losses.
//
// f32 rows on the CPU run in fused loops; the plain version serves other devices, and f64 for tests. Throws
// ShapeError without a teacher's logits, ConfigError for parameters out of range.
#pragma once

#include "kernels/cpu/table.h"
#include "kernels/linear_loss.h"

namespace retort::kernels {

using cpu::Divergence;

//   kReverseKl          KL(q || p)                         p counts as at least e^-87
//   kJsd(b)             b KL(p || m) + (1 - b) KL(q || m)  m = b p + (1 - b) q, 0 < b < 1
//   kSkewForwardKl(a)   KL(p || m)                         m = a p + (1 - a) q, 0 <= a < 1
//   kSkewReverseKl(a)   KL(q || m)                         m = (1 - a) p + a q, 0 < a < 1
//   kTotalVariation     1/2 sum |p - q|                    the slope at p = q is 0
//   kAdaptiveKl         w KL(p || q) + (1 - w) KL(q || p)  w a constant for the gradient
// w is the share of sum |p - q| on the teacher's head: the fewest of its likeliest ids that hold half its
// mass, and ids as likely as the last of them. A teacher's logit of -infinity is probability 0 and adds
// nothing, except to reverse KL, which counts it as e^-87. Sources: Agarwal et al. 2024 (GKD, arXiv
// 2306.13649), Ko et al. 2024 (DistiLLM, arXiv 2402.03898), Wu et al. 2024 (AKL, arXiv 2404.02657), Wen et
// al. 2023 (f-distillation, arXiv 2307.15190).
RowLoss divergence_rows(Divergence kind, double temperature, double mix = 0.0);
// mean_j (c_j - c^t_j)^2, c and c^t logits less their row's mean; ids whose teacher's logit is -infinity are
// left out.
RowLoss logit_mse_rows();

}  // namespace retort::kernels
