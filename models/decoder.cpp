// B batch, T tokens, S keys, D width, H heads, G kv heads, K head_dim, F ffn_width, V vocabulary.
#include "models/decoder.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/norm.h"
#include "models/kv_cache.h"
#include "models/linear.h"

namespace retort::models {
namespace {

struct Norm {
  const Parameter* weight = nullptr;
  const Parameter* bias = nullptr;  // layer norm
  double eps = 0;
  bool unit_offset = false;

  at::Tensor operator()(const at::Tensor& x) const {
    return bias ? kernels::layer_norm(x, weight->working, bias->working, eps)
                : kernels::rms_norm(x, weight->working, eps, unit_offset);
  }
};

struct Layer {
  Norm attn_norm, ffn_norm;
  Norm q_norm, k_norm, attn_post_norm, ffn_post_norm;  // without a weight: absent
  Linear q, k, v, o, gate, up, down;
};

// Declares the tensors below "prefix" as parameters of its own, or as aliases of those below "owner".
class Scope {
 public:
  Scope(Parameters& parameters, const DecoderSpec& spec, std::string prefix, std::string owner)
      : parameters_(parameters), spec_(spec), prefix_(std::move(prefix)), owner_(std::move(owner)) {}

  Parameter* tensor(const std::string& name, at::IntArrayRef shape, Role role, int64_t depth = 0) const {
    if (owner_ == prefix_) return &parameters_.add(prefix_ + name, shape, role, depth);
    parameters_.alias(prefix_ + name, owner_ + name);
    return &parameters_.at(owner_ + name);
  }

  Norm norm(const std::string& name) const { return norm(name, spec_.width); }
  Norm norm(const std::string& name, int64_t width) const {
    const bool unit_offset = spec_.norm == NormKind::kRmsUnitOffset;
    Parameter* weight = tensor(name + ".weight", {width}, Role::kNorm);
    weight->offset = unit_offset ? 1.0 : 0.0;
    Norm norm{weight, nullptr, spec_.norm_eps, unit_offset};
    if (spec_.norm == NormKind::kLayer) norm.bias = tensor(name + ".bias", {width}, Role::kBias);
    return norm;
  }

  Linear linear(const std::string& name, int64_t out, int64_t in, bool bias, int64_t depth = 0) const {
    Linear linear{tensor(name + ".weight", {out, in}, Role::kMatrix, depth), nullptr};
    if (bias) linear.bias = tensor(name + ".bias", {out}, Role::kBias);
    return linear;
  }

  void adapt(Linear& linear, const std::string& name) const {
    const int64_t out = linear.weight->master.size(0), in = linear.weight->master.size(1);
    linear.lora_a = tensor(name + ".lora_a.weight", {spec_.lora_rank, in}, Role::kLoraA);
    linear.lora_b = tensor(name + ".lora_b.weight", {out, spec_.lora_rank}, Role::kLoraB);
  }

 private:
  Parameters& parameters_;
  const DecoderSpec& spec_;
  std::string prefix_, owner_;
};

// What all layers of one call share.
struct Context {
  at::Tensor positions_BT;
  kernels::AttentionMask mask;
  bool past_original = false;  // longrope: the sequence is longer than its original context
  KvCache* cache = nullptr;
  std::vector<LayerTap>* taps = nullptr;

  LayerTap* tap(int64_t layer) const {
    if (taps == nullptr) return nullptr;
    const auto found =
        std::find_if(taps->begin(), taps->end(), [&](const LayerTap& t) { return t.layer == layer; });
    return found == taps->end() ? nullptr : &*found;
  }
};

void check_range(const at::Tensor& ids, const char* name, int64_t size) {
  if (!ids.is_cpu() || ids.numel() == 0) return;  // on a device the check would wait for it
  const auto [low, high] = at::aminmax(ids);
  const int64_t least = low.item<int64_t>(), most = high.item<int64_t>();
  check<DataError>(least >= 0 && most < size, "[decoder] {} must lie in [0, {}), got {}", name, size,
                   least < 0 ? least : most);
}

}  // namespace

struct Decoder::State {
  State(DecoderSpec s, at::Device device) : spec(std::move(s)), parameters(device) {}

  DecoderSpec spec;
  Parameters parameters;
  const Parameter* embed = nullptr;
  const Parameter* positions = nullptr;  // learned
  std::vector<Layer> layers;             // executed
  Norm final_norm;
  const Parameter* head = nullptr;
  kernels::RopeTables rope, rope_long, rope_local;  // made at first use; long: longrope past its original

  void declare();
  Layer declare_layer(int64_t n);
  Context context(const TokenBlock& block, KvCache* cache);
  void make_rope_tables();
  const kernels::RopeTables& rope_tables(int64_t n, const Context& context) const;
  at::Tensor attention(int64_t n, const at::Tensor& x_BTD, const Context& context) const;
  at::Tensor feed_forward(const Layer& layer, const at::Tensor& x_BTD) const;
  at::Tensor embedded(const at::Tensor& tokens_BT, const Context& context) const;
  at::Tensor run_layer(int64_t n, const at::Tensor& x_BTD, const Context& context) const;
  double embedding_scale() const;
  static TokenBlock remember(KvCache& cache, const at::Tensor& tokens_BT, const at::Tensor& positions_BT);
};

void Decoder::State::declare() {
  const Scope root(parameters, spec, "", "");
  embed = root.tensor("embed.weight", {spec.vocabulary, spec.width}, Role::kEmbedding);
  if (spec.positions == PositionKind::kLearned)
    positions = root.tensor("positions.weight", {spec.context, spec.width}, Role::kPositions);
  for (int64_t n = 0; n < spec.layers; ++n) layers.push_back(declare_layer(n));
  final_norm = root.norm("final_norm");
  if (spec.tie_embeddings) {
    parameters.alias("lm_head.weight", "embed.weight");
    head = embed;
  } else {
    head = root.tensor("lm_head.weight", {spec.vocabulary, spec.width}, Role::kHead);
  }
}

Layer Decoder::State::declare_layer(int64_t n) {
  const int64_t first = n - n % spec.repeat;  // the first layer that runs this block
  const auto prefix = [](int64_t layer) { return fmt::format("layers.{}.", layer); };
  const Scope block(parameters, spec, prefix(n), prefix(first));
  const bool inside = n >= spec.keep_first && n < spec.layers - spec.keep_last;
  const auto owner = [&](bool shared) { return prefix(shared && inside ? spec.keep_first : first); };
  const Scope output(parameters, spec, prefix(n), owner(spec.share_output));
  const Scope ffn(parameters, spec, prefix(n), owner(spec.share_ffn));
  const int64_t D = spec.width, F = spec.ffn_width, L = spec.layers;
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
  layer.o = output.linear("attn.o", D, q_width, spec.attention_bias, L);
  if (spec.post_norms) layer.attn_post_norm = block.norm("attn_post_norm");
  layer.ffn_norm = block.norm("ffn_norm");
  if (spec.ffn != FfnKind::kGelu) layer.gate = ffn.linear("ffn.gate", F, D, spec.ffn_bias);
  layer.up = ffn.linear("ffn.up", F, D, spec.ffn_bias);
  layer.down = ffn.linear("ffn.down", D, F, spec.ffn_bias, L);
  if (spec.post_norms) layer.ffn_post_norm = block.norm("ffn_post_norm");
  if (spec.lora_rank > 0 && inside) {
    if (layer.gate.weight) block.adapt(layer.gate, "ffn.gate");
    block.adapt(layer.up, "ffn.up");
    block.adapt(layer.down, "ffn.down");
  }
  return layer;
}

Context Decoder::State::context(const TokenBlock& block, KvCache* cache) {
  check_shape("decoder", "tokens_BT", block.tokens_BT, {-1, -1});
  check_range(block.tokens_BT, "tokens", spec.vocabulary);
  const int64_t B = block.tokens_BT.size(0), T = block.tokens_BT.size(1), past = cache ? cache->length() : 0;
  Context c;
  c.cache = cache;
  c.taps = block.taps;
  if (c.taps != nullptr)
    for (const LayerTap& tap : *c.taps)
      check<InternalError>(tap.layer >= 0 && tap.layer < spec.layers,
                           "[decoder] layers 0 to {} can be tapped, got {}", spec.layers - 1, tap.layer);
  if (block.positions_BT.defined()) {
    check_shape("decoder", "positions_BT", block.positions_BT, {B, T});
    check_range(block.positions_BT, "positions", spec.context);
    c.positions_BT = block.positions_BT;
  } else {
    check<DataError>(past + T <= spec.context,
                     "[decoder] a sequence must fit the context of {}, got {} tokens", spec.context,
                     past + T);
    c.positions_BT = at::arange(past, past + T, block.tokens_BT.options()).expand({B, T});
  }
  if (block.document_BT.defined()) {
    check(cache == nullptr, "[decoder] a cache continues one document: document_BT must be undefined");
    check_shape("decoder", "document_BT", block.document_BT, {B, T});
    c.mask.document_BS = block.document_BT;
  }
  if (spec.positions == PositionKind::kRope && !rope.cos_PK.defined()) make_rope_tables();
  if (spec.rope_scaling.kind == "longrope")
    c.past_original = (block.positions_BT.defined() ? block.positions_BT.max().item<int64_t>() + 1
                                                    : past + T) > spec.rope_scaling.original_context;
  return c;
}

void Decoder::State::make_rope_tables() {
  const auto tables = [&](double theta, const kernels::RopeScaling& scaling, bool past_original) {
    return kernels::rope_tables(kernels::rope_frequencies(spec.head_dim, theta, scaling, past_original),
                                spec.context, embed->working.device(), kernels::rope_amplitude(scaling));
  };
  rope = tables(spec.rope_theta, spec.rope_scaling, false);
  if (spec.rope_scaling.kind == "longrope") rope_long = tables(spec.rope_theta, spec.rope_scaling, true);
  if (spec.rope_local_theta > 0) rope_local = tables(spec.rope_local_theta, {}, false);
}

const kernels::RopeTables& Decoder::State::rope_tables(int64_t n, const Context& c) const {
  if (spec.rope_local_theta > 0 && spec.windowed(n)) return rope_local;
  return c.past_original ? rope_long : rope;
}

at::Tensor Decoder::State::attention(int64_t n, const at::Tensor& x_BTD, const Context& c) const {
  const Layer& layer = layers[static_cast<size_t>(n)];
  const int64_t B = x_BTD.size(0), T = x_BTD.size(1), K = spec.head_dim;
  const at::Tensor h_BTD = layer.attn_norm(x_BTD).to(layer.q.dtype());  // one cast for three products
  at::Tensor q_BTHK = layer.q(h_BTD).view({B, T, spec.heads, K});
  at::Tensor k_BSGK = layer.k(h_BTD).view({B, T, spec.kv_heads, K});
  at::Tensor v_BSGK = layer.v(h_BTD).view({B, T, spec.kv_heads, K});
  if (spec.qk_norm) q_BTHK = layer.q_norm(q_BTHK), k_BSGK = layer.k_norm(k_BSGK);
  if (LayerTap* tap = c.tap(n)) tap->q_BTHK = q_BTHK, tap->k_BTGK = k_BSGK, tap->v_BTGK = v_BSGK;
  if (spec.positions == PositionKind::kRope) {
    q_BTHK = kernels::rope(q_BTHK, rope_tables(n, c), c.positions_BT);
    k_BSGK = kernels::rope(k_BSGK, rope_tables(n, c), c.positions_BT);
  }
  if (c.cache) std::tie(k_BSGK, v_BSGK) = c.cache->append(n, k_BSGK, v_BSGK);
  kernels::AttentionMask mask = c.mask;
  if (spec.windowed(n)) mask.window = spec.window;
  const double scale = 1.0 / std::sqrt(spec.query_scalar > 0 ? spec.query_scalar : static_cast<double>(K));
  const at::Tensor y_BTHK = kernels::attention(q_BTHK, k_BSGK, v_BSGK, mask, scale);
  const at::Tensor sum_BTD = layer.o(y_BTHK.reshape({B, T, spec.heads * K})).to(at::kFloat);
  return spec.post_norms ? layer.attn_post_norm(sum_BTD) : sum_BTD;
}

at::Tensor Decoder::State::feed_forward(const Layer& layer, const at::Tensor& x_BTD) const {
  const at::Tensor h_BTD = layer.ffn_norm(x_BTD).to(layer.up.dtype());
  const auto activated = [&] {
    if (spec.ffn == FfnKind::kGelu) return kernels::gelu_tanh(layer.up(h_BTD));
    const at::Tensor gate_BTF = layer.gate(h_BTD), up_BTF = layer.up(h_BTD);
    return spec.ffn == FfnKind::kSwiglu ? kernels::swiglu(gate_BTF, up_BTF)
                                        : kernels::geglu(gate_BTF, up_BTF);
  };
  const at::Tensor sum_BTD = layer.down(activated()).to(at::kFloat);
  return spec.post_norms ? layer.ffn_post_norm(sum_BTD) : sum_BTD;
}

at::Tensor Decoder::State::embedded(const at::Tensor& tokens_BT, const Context& c) const {
  at::Tensor x_BTD = look_up(*embed, tokens_BT);
  if (spec.scale_embeddings) x_BTD = x_BTD * embedding_scale();
  return positions ? x_BTD + look_up(*positions, c.positions_BT) : x_BTD;
}

at::Tensor Decoder::State::run_layer(int64_t n, const at::Tensor& x_BTD, const Context& c) const {
  const at::Tensor y_BTD = x_BTD + attention(n, x_BTD, c);
  const at::Tensor out_BTD = y_BTD + feed_forward(layers[static_cast<size_t>(n)], y_BTD);
  if (LayerTap* tap = c.tap(n)) tap->h_BTD = out_BTD;
  return out_BTD;
}

// What the cache held and now holds too.
TokenBlock Decoder::State::remember(KvCache& cache, const at::Tensor& tokens_BT,
                                    const at::Tensor& positions_BT) {
  const auto extend = [&](at::Tensor& all_BT, const at::Tensor& fresh_BT) {
    all_BT = cache.length() == 0 ? fresh_BT : at::cat({all_BT.narrow(1, 0, cache.length()), fresh_BT}, 1);
  };
  extend(cache.tokens_BT, tokens_BT);
  extend(cache.positions_BT, positions_BT);
  return {cache.tokens_BT, cache.positions_BT, {}};
}

double Decoder::State::embedding_scale() const {
  const double scale = std::sqrt(static_cast<double>(spec.width));
  if (embed->working.scalar_type() == at::kBFloat16) return c10::BFloat16(static_cast<float>(scale));
  return static_cast<float>(scale);
}

Decoder::Decoder(DecoderSpec spec, at::Device device) {
  spec.validate();
  state_ = std::make_unique<State>(std::move(spec), device);
  state_->declare();
}

Decoder::~Decoder() = default;

at::Tensor Decoder::hidden(const TokenBlock& block, KvCache* cache) {
  State& s = *state_;
  const Context c = s.context(block, cache);
  if (cache && s.spec.rope_scaling.kind == "longrope") {
    const bool switches = c.past_original && cache->length() > 0 &&
                          cache->positions_BT.max().item<int64_t>() < s.spec.rope_scaling.original_context;
    const TokenBlock whole = s.remember(*cache, block.tokens_BT, c.positions_BT);
    if (switches) {  // every key turns by other factors now
      cache->clear();
      return hidden(whole, cache)
          .narrow(1, whole.tokens_BT.size(1) - block.tokens_BT.size(1), block.tokens_BT.size(1));
    }
  }
  at::Tensor x_BTD = s.embedded(block.tokens_BT, c);
  for (int64_t n = 0; n < s.spec.layers; ++n) x_BTD = s.run_layer(n, x_BTD, c);
  if (cache) cache->advance(block.tokens_BT.size(1));
  return s.final_norm(x_BTD);
}

at::Tensor Decoder::embed(const TokenBlock& block) {
  return state_->embedded(block.tokens_BT, state_->context(block, nullptr));
}

at::Tensor Decoder::run_layer(int64_t n, const at::Tensor& x_BTD, const TokenBlock& block) {
  RETORT_ASSERT(n >= 0 && n < state_->spec.layers);
  return state_->run_layer(n, x_BTD, state_->context(block, nullptr));
}

std::unique_ptr<KvCache> Decoder::make_cache(int64_t batch, int64_t capacity) const {
  const DecoderSpec& s = state_->spec;
  return std::make_unique<KvCache>(s.layers, batch, s.kv_heads, s.head_dim, capacity);
}

double Decoder::flops_per_token(int64_t tokens) const {
  const DecoderSpec& s = state_->spec;
  double executed = static_cast<double>(s.vocabulary * s.width);  // the head
  for (const Parameter& p : state_->parameters.unique())
    if (p.role == Role::kMatrix || is_adapter(p.role))
      executed += static_cast<double>(p.numel()) * static_cast<double>(p.uses.size());
  return 6.0 * executed +
         12.0 * static_cast<double>(s.layers * s.heads * s.head_dim) * static_cast<double>(tokens);
}

const DecoderSpec& Decoder::spec() const { return state_->spec; }
Head Decoder::head() const { return {state_->head->working, state_->spec.logit_softcap}; }
Parameters& Decoder::parameters() { return state_->parameters; }
const Parameters& Decoder::parameters() const { return state_->parameters; }
int64_t Decoder::vocabulary() const { return state_->spec.vocabulary; }
int64_t Decoder::context() const { return state_->spec.context; }
int64_t Decoder::width() const { return state_->spec.width; }
int64_t Decoder::layers() const { return state_->spec.layers; }

}  // namespace retort::models
