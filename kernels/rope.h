// Rotary position embedding, half-split ("NEOX") layout: pairs (x_i, x_{i+K/2}), angle = position *
// inv_freq_i.
//   x' = x cos + rotate_half(x) sin, rotate_half([a, b]) = [-b, a]
// (Su et al. 2021, RoFormer.) Tables are f32 and computed in f64: at large positions a bf16 angle is noise.
#pragma once

#include <ATen/ATen.h>

#include <string>

namespace retort::kernels {

// inv_freq_i = theta^(-2i/K), then the scaling rule. Source of llama3 scaling: Llama 3.1's reference code.
struct RopeScaling {
  std::string kind = "none";  // none | linear | llama3
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  int64_t original_context = 8192;                       // llama3
};

// Frequencies [K/2], f64 CPU.
at::Tensor rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling);

struct RopeTables {
  at::Tensor cos_PK, sin_PK;  // f32 [positions, K/2]
};
RopeTables rope_tables(const at::Tensor& frequencies, int64_t positions, const at::Device& device = at::kCPU);

// x_BTHK with positions_BT (i64, < the tables' positions). Differentiable in x; same dtype out.
at::Tensor rope(const at::Tensor& x_BTHK, const RopeTables& tables, const at::Tensor& positions_BT);

}  // namespace retort::kernels
