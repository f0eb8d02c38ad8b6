// B batch, T tokens, S keys, D width, H heads, G kv heads, K head_dim, Q = H K, F ffn_width.
#include "models/layers.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/activation.h"
#include "kernels/norm.h"
#include "models/adapters.h"

namespace retort::models {

at::Tensor Norm::operator()(const at::Tensor& x) const {
  return bias ? kernels::layer_norm(x, weight->working, bias->working, eps)
              : kernels::rms_norm(x, weight->working, eps, unit_offset);
}

at::Tensor Norm::operator()(Residual& stream) const {
  if (bias || !stream.branch_BTD.defined()) {
    stream = {stream.sum()};
    return (*this)(stream.x_BTD);
  }
  auto [sum_BTD, y_BTD] =
      kernels::add_rms_norm(stream.x_BTD, stream.branch_BTD, weight->working, eps, unit_offset);
  stream = {std::move(sum_BTD)};
  return y_BTD;
}

Parameter* Scope::tensor(const std::string& name, at::IntArrayRef shape, Role role, int64_t depth) const {
  if (owner_ == prefix_) return &parameters_.add(prefix_ + name, shape, role, depth);
  parameters_.alias(prefix_ + name, owner_ + name);
  return &parameters_.at(owner_ + name);
}

Norm Scope::norm(const std::string& name, int64_t width) const {
  const bool unit_offset = spec_.norm == NormKind::kRmsUnitOffset;
  Parameter* weight = tensor(name + ".weight", {width}, Role::kNorm);
  weight->offset = unit_offset ? 1.0 : 0.0;
  Norm norm{weight, nullptr, spec_.norm_eps, unit_offset};
  if (spec_.norm == NormKind::kLayer) norm.bias = tensor(name + ".bias", {width}, Role::kBias);
  return norm;
}

Linear Scope::linear(const std::string& name, int64_t out, int64_t in, bool bias, int64_t depth) const {
  Linear linear{tensor(name + ".weight", {out, in}, Role::kMatrix, depth), nullptr};
  linear.adapter = &parameters_.adapter(prefix_ + name + ".weight");
  if (bias) linear.bias = tensor(name + ".bias", {out}, Role::kBias);
  return linear;
}

void Scope::adapt(const std::string& name) const {
  add_low_rank(parameters_, {prefix_ + name + ".weight"}, {.rank = spec_.lora_rank});
}

LayerTap* LayerCall::tap(int64_t layer) const {
  if (taps == nullptr) return nullptr;
  const auto found =
      std::find_if(taps->begin(), taps->end(), [&](const LayerTap& t) { return t.layer == layer; });
  return found == taps->end() ? nullptr : &*found;
}

Layers::Layers(Parameters& parameters, DecoderSpec spec, std::string prefix, int64_t residual_depth)
    : spec_(std::move(spec)) {
  const int64_t depth = residual_depth > 0 ? residual_depth : spec_.layers;
  for (int64_t n = 0; n < spec_.layers; ++n) layers_.push_back(declare(parameters, prefix, n, depth));
}

Layers::Layer Layers::declare(Parameters& parameters, const std::string& prefix, int64_t n,
                              int64_t depth) const {
  const DecoderSpec& spec = spec_;
  const int64_t first = n - n % spec.repeat;  // the first layer that runs this block
  const auto name = [&](int64_t layer) { return fmt::format("{}layers.{}.", prefix, layer); };
  const Scope block(parameters, spec, name(n), name(first));
  const bool inside = n >= spec.keep_first && n < spec.layers - spec.keep_last;
  const auto owner = [&](bool shared) { return name(shared && inside ? spec.keep_first : first); };
  const Scope output(parameters, spec, name(n), owner(spec.share_output));
  const Scope ffn(parameters, spec, name(n), owner(spec.share_ffn));
  const int64_t D = spec.width, F = spec.ffn_width;
  const int64_t q_width = spec.heads * spec.head_dim, kv_width = spec.kv_heads * spec.head_dim;
  Layer layer;
  layer.attn_norm = block.norm("attn_norm");
  const bool qkv_bias = spec.attention_bias || spec.qkv_bias;
  layer.q = block.linear("attn.q", q_width, D, qkv_bias);
  layer.k = block.linear("attn.k", kv_width, D, qkv_bias);
  layer.v = block.linear("attn.v", kv_width, D, qkv_bias);
  if (spec.qk_norm) {
    layer.q_norm = block.norm("attn.q_norm", spec.head_dim);
    layer.k_norm = block.norm("attn.k_norm", spec.head_dim);
  }
  if (spec.sub_norms) layer.attn_sub_norm = block.norm("attn.sub_norm", q_width);
  layer.o = output.linear("attn.o", D, q_width, spec.attention_bias, depth);
  if (spec.post_norms) layer.attn_post_norm = block.norm("attn_post_norm");
  layer.ffn_norm = block.norm("ffn_norm");
  if (spec.ffn != FfnKind::kGelu) layer.gate = ffn.linear("ffn.gate", F, D, spec.ffn_bias);
  layer.up = ffn.linear("ffn.up", F, D, spec.ffn_bias);
  if (spec.sub_norms) layer.ffn_sub_norm = ffn.norm("ffn.sub_norm", F);
  layer.down = ffn.linear("ffn.down", D, F, spec.ffn_bias, depth);
  if (spec.post_norms) layer.ffn_post_norm = block.norm("ffn_post_norm");
  if (spec.lora_rank > 0 && inside) {
    if (layer.gate.weight) block.adapt("ffn.gate");
    block.adapt("ffn.up");
    block.adapt("ffn.down");
  }
  return layer;
}

void Layers::prepare(int64_t positions, const at::Device& device) {
  if (spec_.positions != PositionKind::kRope) return;
  if (rope_.cos_PK.defined() && rope_.cos_PK.size(0) >= positions && rope_.cos_PK.device() == device) return;
  const auto tables = [&](double theta, const kernels::RopeScaling& scaling, bool past_original) {
    return kernels::rope_tables(kernels::rope_frequencies(spec_.head_dim, theta, scaling, past_original),
                                positions, device, kernels::rope_amplitude(scaling));
  };
  rope_ = tables(spec_.rope_theta, spec_.rope_scaling, false);
  if (spec_.rope_scaling.kind == "longrope") rope_long_ = tables(spec_.rope_theta, spec_.rope_scaling, true);
  if (spec_.rope_local_theta > 0) rope_local_ = tables(spec_.rope_local_theta, {}, false);
}

const kernels::RopeTables& Layers::rope_tables(int64_t n, const LayerCall& call) const {
  if (spec_.rope_local_theta > 0 && spec_.windowed(n)) return rope_local_;
  return call.past_original ? rope_long_ : rope_;
}

at::Tensor Layers::attention(int64_t n, const at::Tensor& normed_BTD, const LayerCall& call) const {
  const Layer& layer = layers_[static_cast<size_t>(n)];
  const int64_t B = normed_BTD.size(0), T = normed_BTD.size(1), K = spec_.head_dim;
  // One cast for three products.
  const std::vector<at::Tensor> qkv =
      apply_all(normed_BTD.to(layer.q.dtype()), {&layer.q, &layer.k, &layer.v});
  at::Tensor q_BTHK = qkv[0].view({B, T, spec_.heads, K});
  at::Tensor k_BSGK = qkv[1].view({B, T, spec_.kv_heads, K});
  at::Tensor v_BSGK = qkv[2].view({B, T, spec_.kv_heads, K});
  if (spec_.qk_norm) q_BTHK = layer.q_norm(q_BTHK), k_BSGK = layer.k_norm(k_BSGK);
  if (LayerTap* tap = call.tap(n)) {
    tap->q_BTHK = q_BTHK, tap->k_BTGK = k_BSGK, tap->v_BTGK = v_BSGK;
    if (call.reads)
      for (const at::Tensor& tapped : {q_BTHK, k_BSGK, v_BSGK}) call.reads->backward(n + 1, tapped);
  }
  if (spec_.positions == PositionKind::kRope)
    std::tie(q_BTHK, k_BSGK) = kernels::rope(q_BTHK, k_BSGK, rope_tables(n, call), call.positions_BT);
  if (call.cache) std::tie(k_BSGK, v_BSGK) = call.cache->append(n, k_BSGK, v_BSGK);
  kernels::AttentionMask mask = call.mask;
  if (spec_.windowed(n)) mask.window = spec_.window;
  const double scale = 1.0 / std::sqrt(spec_.query_scalar > 0 ? spec_.query_scalar : static_cast<double>(K));
  at::Tensor y_BTQ = kernels::attention(q_BTHK, k_BSGK, v_BSGK, mask, scale).reshape({B, T, spec_.heads * K});
  if (spec_.sub_norms) y_BTQ = layer.attn_sub_norm(y_BTQ);
  const at::Tensor sum_BTD = layer.o(y_BTQ).to(at::kFloat);
  return spec_.post_norms ? layer.attn_post_norm(sum_BTD) : sum_BTD;
}

at::Tensor Layers::feed_forward(const Layer& layer, const at::Tensor& normed_BTD) const {
  const at::Tensor h_BTD = normed_BTD.to(layer.up.dtype());
  const auto activated = [&] {
    if (spec_.ffn == FfnKind::kGelu) return kernels::gelu_tanh(layer.up(h_BTD));
    const std::vector<at::Tensor> both = apply_all(h_BTD, {&layer.gate, &layer.up});
    if (spec_.ffn == FfnKind::kRelu2glu) return kernels::relu2glu(both[0], both[1]);
    return spec_.ffn == FfnKind::kSwiglu ? kernels::swiglu(both[0], both[1])
                                         : kernels::geglu(both[0], both[1]);
  };
  at::Tensor a_BTF = activated();
  if (spec_.sub_norms) a_BTF = layer.ffn_sub_norm(a_BTF);
  const at::Tensor sum_BTD = layer.down(a_BTF).to(at::kFloat);
  return spec_.post_norms ? layer.ffn_post_norm(sum_BTD) : sum_BTD;
}

Residual Layers::run(int64_t n, Residual stream, const LayerCall& call) const {
  if (call.reads) call.reads->forward(n + 1);
  const Layer& layer = layers_[static_cast<size_t>(n)];
  const at::Tensor h_BTD = layer.attn_norm(stream);
  stream.branch_BTD = attention(n, h_BTD, call);
  const at::Tensor normed_BTD = layer.ffn_norm(stream);
  stream.branch_BTD = feed_forward(layer, normed_BTD);
  if (call.reads) call.reads->backward(n + 1, stream.branch_BTD);
  if (LayerTap* tap = call.tap(n)) {
    stream = {stream.sum()};
    tap->h_BTD = stream.x_BTD;
  }
  return stream;
}

std::vector<const Parameter*> Layers::weights(int64_t n) const {
  const Layer& l = layers_[static_cast<size_t>(n)];
  std::vector<const Parameter*> out;
  for (const Norm* norm : {&l.attn_norm, &l.ffn_norm, &l.q_norm, &l.k_norm, &l.attn_sub_norm,
                           &l.attn_post_norm, &l.ffn_sub_norm, &l.ffn_post_norm})
    out.insert(out.end(), {norm->weight, norm->bias});
  for (const Linear* linear : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down})
    out.insert(out.end(), {linear->weight, linear->bias});
  std::erase(out, nullptr);
  return out;
}

Residual Layers::operator()(at::Tensor x_BTD, const LayerCall& call) const {
  Residual stream{std::move(x_BTD)};
  for (int64_t n = 0; n < spec_.layers; ++n) stream = run(n, std::move(stream), call);
  return stream;
}

}  // namespace retort::models
