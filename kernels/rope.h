// Rotary position embedding, half-split ("NEOX") layout: pairs (x_i, x_{i+K/2}), angle = position *
// inv_freq_i.
//   x' = x cos + rotate_half(x) sin, rotate_half([a, b]) = [-b, a]
// (Su et al. 2021, RoFormer.) Tables are f32 and computed in f64: at large positions a bf16 angle is noise.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

namespace retort::kernels {

// inv_freq_i = theta^(-2i/K), then the scaling rule.
//   linear    divided by factor
//   llama3    long wavelengths divided, short ones kept, those between blended (Llama 3.1's reference code)
//   longrope  divided by short_factor_i in a sequence of up to original_context, else by long_factor_i; cos
//             and sin are always multiplied by attention_factor (Ding et al. 2024, LongRoPE; Phi-3's
//             reference code)
struct RopeScaling {
  std::string kind = "none";  // none | linear | llama3 | longrope
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  int64_t original_context = 8192;                       // llama3, longrope
  double attention_factor = 0.0;  // longrope; 0: sqrt(1 + ln factor / ln original_context)
  std::vector<double> short_factor = {}, long_factor = {};  // longrope: K/2 each

  bool operator==(const RopeScaling&) const = default;
};

// Frequencies [K/2], f64 CPU. `past_original`: of a sequence longer than original_context (longrope).
at::Tensor rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling,
                            bool past_original = false);
double rope_amplitude(const RopeScaling& scaling);  // what cos and sin are multiplied by

struct RopeTables {
  at::Tensor cos_PK, sin_PK;  // f32 [positions, K/2]
};
RopeTables rope_tables(const at::Tensor& frequencies, int64_t positions, const at::Device& device = at::kCPU,
                       double amplitude = 1.0);

// Queries and keys at positions_BT (i64, < the tables' positions), on a device in one launch, from where a product left
// them. Differentiable in both; same dtype out, dense.
std::pair<at::Tensor, at::Tensor> rope(const at::Tensor& q_BTHK, const at::Tensor& k_BTGK,
                                       const RopeTables& tables, const at::Tensor& positions_BT);

}  // namespace retort::kernels
