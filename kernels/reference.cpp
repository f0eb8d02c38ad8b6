#include "kernels/reference.h"

#include "kernels/linear_loss.h"

namespace retort::kernels::reference {

namespace {

at::Tensor upcast(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

}  // namespace

at::Tensor rms_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, double eps, bool unit_offset) {
  const at::Tensor x = upcast(x_ND);
  const at::Tensor w = unit_offset ? upcast(weight_D) + 1 : upcast(weight_D);
  return (x * at::rsqrt(x.square().mean(-1, true) + eps) * w).to(x_ND.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps) {
  const at::Tensor x = upcast(x_ND);
  const at::Tensor centred = x - x.mean(-1, true);
  const at::Tensor rstd = at::rsqrt(centred.square().mean(-1, true) + eps);
  return (centred * rstd * upcast(weight_D) + upcast(bias_D)).to(x_ND.scalar_type());
}

at::Tensor swiglu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  const at::Tensor gate = upcast(gate_NF);
  return (gate * at::sigmoid(gate) * upcast(up_NF)).to(gate_NF.scalar_type());
}

at::Tensor gelu_tanh(const at::Tensor& x_NF) {
  const at::Tensor x = upcast(x_NF);
  return at::gelu(x, "tanh").to(x_NF.scalar_type());
}

at::Tensor geglu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  return (at::gelu(upcast(gate_NF), "tanh") * upcast(up_NF)).to(gate_NF.scalar_type());
}

at::Tensor relu2glu(const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  return (at::relu(upcast(gate_NF)).square() * upcast(up_NF)).to(gate_NF.scalar_type());
}

at::Tensor rope(const at::Tensor& x_BTHK, const RopeTables& tables, const at::Tensor& positions_BT) {
  const at::Tensor x = upcast(x_BTHK);
  const int64_t half = x.size(3) / 2;
  const at::Tensor flat = positions_BT.reshape({-1});
  const auto angles = [&](const at::Tensor& table_PK) {
    return table_PK.index_select(0, flat).view({x.size(0), x.size(1), 1, half}).to(x.scalar_type());
  };
  const at::Tensor cos = angles(tables.cos_PK), sin = angles(tables.sin_PK);
  const at::Tensor a = x.narrow(3, 0, half), b = x.narrow(3, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 3).to(x_BTHK.scalar_type());
}

at::Tensor visible_BTS(const AttentionMask& mask, int64_t queries, int64_t keys, const at::Device& device) {
  const at::Tensor key = at::arange(keys, at::TensorOptions().dtype(at::kLong).device(device));
  const at::Tensor query = key.narrow(0, keys - queries, queries);
  const at::Tensor distance_TS = query.unsqueeze(1) - key.unsqueeze(0);
  at::Tensor visible = distance_TS >= 0;
  if (mask.window > 0) visible = visible & (distance_TS < mask.window);
  visible = visible.view({1, 1, queries, keys});
  if (!mask.document_BS.defined()) return visible;
  const at::Tensor of_query_BT = mask.document_BS.narrow(1, keys - queries, queries);
  return visible & (of_query_BT.unsqueeze(2) == mask.document_BS.unsqueeze(1)).unsqueeze(1);
}

at::Tensor attention(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const AttentionMask& mask, double scale) {
  const int64_t group = q_BTHK.size(2) / k_BSGK.size(2);
  const at::Tensor q = upcast(q_BTHK).transpose(1, 2);
  const at::Tensor k = upcast(k_BSGK).transpose(1, 2).repeat_interleave(group, 1);
  const at::Tensor v = upcast(v_BSGK).transpose(1, 2).repeat_interleave(group, 1);
  const at::Tensor hidden = visible_BTS(mask, q.size(2), k.size(2), q.device()).logical_not();
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) * scale;
  const at::Tensor weights = at::softmax(scores.masked_fill(hidden, -INFINITY), -1);
  return at::matmul(weights, v).transpose(1, 2).to(q_BTHK.scalar_type());
}

at::Tensor cross_entropy(const at::Tensor& logits_NV, const at::Tensor& labels_N) {
  return at::cross_entropy_loss(upcast(logits_NV), labels_N, {}, at::Reduction::Sum, kIgnoredLabel);
}

at::Tensor forward_kl(const at::Tensor& student_NV, const at::Tensor& teacher_NV, const at::Tensor& labels_N,
                      double temperature) {
  const at::Tensor rows = (labels_N != kIgnoredLabel).nonzero().view({-1});
  const at::Tensor log_q = at::log_softmax(upcast(student_NV.index_select(0, rows)) / temperature, -1);
  const at::Tensor log_p = at::log_softmax(upcast(teacher_NV.index_select(0, rows)) / temperature, -1);
  return (log_p.exp() * (log_p - log_q)).sum() * (temperature * temperature);
}

}  // namespace retort::kernels::reference
