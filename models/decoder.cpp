// B batch, T tokens, D width, V vocabulary.
#include "models/decoder.h"

#include <cmath>

#include "core/error.h"
#include "core/shape.h"
#include "models/document_mask.h"
#include "models/family.h"
#include "models/kv_cache.h"
#include "models/layers.h"

namespace retort::models {
namespace {

void check_range(const at::Tensor& ids, const char* name, int64_t size) {
  if (!ids.is_cpu() || ids.numel() == 0) return;  // on a device the check would wait for it
  const auto [low, high] = at::aminmax(ids);
  const int64_t least = low.item<int64_t>(), most = high.item<int64_t>();
  check<DataError>(least >= 0 && most < size, "[decoder] {} must lie in [0, {}), got {}", name, size,
                   least < 0 ? least : most);
}

}  // namespace

struct Decoder::State {
  State(DecoderSpec s, at::Device device) : spec(std::move(s)), parameters(device), reads(spec.layers + 2) {
    declare();
  }

  DecoderSpec spec;
  Parameters parameters;
  const Parameter* embed = nullptr;
  const Parameter* positions = nullptr;  // learned
  std::optional<Layers> layers;
  Norm final_norm;
  const Parameter* head = nullptr;
  const LowRank *embed_adapter = nullptr, *head_adapter = nullptr;
  GroupReads reads;

  void declare();
  int64_t last_group() const { return spec.layers + 1; }
  LayerCall call(const TokenBlock& block, KvCache* cache);
  void skip_padding(LayerCall& c, const at::Tensor& start_B, int64_t keys) const;
  at::Tensor embedded(const TokenBlock& block, const LayerCall& call) const;
  double embedding_scale() const;
  static TokenBlock remember(KvCache& cache, const at::Tensor& tokens_BT, const at::Tensor& positions_BT);
};

void Decoder::State::declare() {
  const Scope root(parameters, spec, "", "");
  embed = root.tensor("embed.weight", {spec.vocabulary, spec.width}, Role::kEmbedding);
  if (spec.positions == PositionKind::kLearned)
    positions = root.tensor("positions.weight", {spec.context, spec.width}, Role::kPositions);
  layers.emplace(parameters, spec, "");
  final_norm = root.norm("final_norm");
  if (spec.tie_embeddings) {
    parameters.alias("lm_head.weight", "embed.weight");
    head = embed;
  } else {
    head = root.tensor("lm_head.weight", {spec.vocabulary, spec.width}, Role::kHead);
  }
  embed_adapter = &parameters.adapter("embed.weight");
  head_adapter = &parameters.adapter("lm_head.weight");
}

LayerCall Decoder::State::call(const TokenBlock& block, KvCache* cache) {
  check_shape("decoder", "tokens_BT", block.tokens_BT, {-1, -1});
  check_range(block.tokens_BT, "tokens", spec.vocabulary);
  const int64_t B = block.tokens_BT.size(0), T = block.tokens_BT.size(1), past = cache ? cache->length() : 0;
  LayerCall c;
  c.cache = cache;
  c.taps = block.taps;
  c.reads = &reads;
  if (c.taps != nullptr)
    for (const LayerTap& tap : *c.taps)
      check<InternalError>(tap.layer >= 0 && tap.layer < spec.layers,
                           "[decoder] layers 0 to {} can be tapped, got {}", spec.layers - 1, tap.layer);
  if (block.positions_BT.defined()) {
    check_shape("decoder", "positions_BT", block.positions_BT, {B, T});
    check_range(block.positions_BT, "positions", spec.context);
    c.positions_BT = block.positions_BT;
  } else {
    const bool padded = cache && cache->start_B.defined();
    const int64_t tokens = past + T - (padded ? cache->start_B.min().item<int64_t>() : 0);
    check<DataError>(tokens <= spec.context, "[decoder] a sequence must fit the context of {}, got {} tokens",
                     spec.context, tokens);
    c.positions_BT = at::arange(past, past + T, block.tokens_BT.options()).expand({B, T});
    if (padded) skip_padding(c, cache->start_B, past + T);
  }
  if (block.document_BT.defined()) {
    check(cache == nullptr, "[decoder] a cache continues one document: document_BT must be undefined");
    check_shape("decoder", "document_BT", block.document_BT, {B, T});
    c.mask = document_mask(block.document_BT, embed->working.device());
  }
  layers->prepare(spec.context, embed->working.device());
  if (spec.rope_scaling.kind == "longrope")
    c.past_original = (block.positions_BT.defined() ? block.positions_BT.max().item<int64_t>() + 1
                                                    : past + T) > spec.rope_scaling.original_context;
  return c;
}

// Rows that begin with padding: positions count from there, and keys before it are another document.
void Decoder::State::skip_padding(LayerCall& c, const at::Tensor& start_B, int64_t keys) const {
  check_shape("decoder", "start_B", start_B, {c.positions_BT.size(0)});
  check<ConfigError>(spec.rope_scaling.kind != "longrope",
                     "[decoder] with longrope the prompts of a batch must be equally long");
  const at::Tensor start_B1 = start_B.unsqueeze(1);
  c.positions_BT = (c.positions_BT - start_B1).clamp_min(0);
  c.mask.document_BS = at::arange(keys, start_B.options()).unsqueeze(0).ge(start_B1).to(at::kLong);
}

at::Tensor Decoder::State::embedded(const TokenBlock& block, const LayerCall& c) const {
  reads.forward(0);
  at::Tensor x_BTD = look_up(*embed, block.tokens_BT, *embed_adapter);
  if (block.noise_BTD.defined()) x_BTD = x_BTD + block.noise_BTD;
  if (spec.scale_embeddings) x_BTD = x_BTD * embedding_scale();
  if (positions) x_BTD = x_BTD + look_up(*positions, c.positions_BT);
  reads.backward(0, x_BTD);
  return x_BTD;
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
  check<ConfigError>(!families().at(spec.family).make, "model.family {} is no plain decoder", spec.family);
  state_ = std::make_unique<State>(std::move(spec), device);
}

Decoder::~Decoder() = default;

at::Tensor Decoder::hidden(const TokenBlock& block, KvCache* cache) {
  State& s = *state_;
  const LayerCall c = s.call(block, cache);
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
  Residual stream = (*s.layers)(s.embedded(block, c), c);
  if (cache) cache->advance(block.tokens_BT.size(1));
  s.reads.forward(s.last_group());
  const at::Tensor h_BTD = s.final_norm(stream);
  s.reads.backward(s.last_group(), h_BTD);
  return h_BTD;
}

at::Tensor Decoder::embed(const TokenBlock& block) {
  return state_->embedded(block, state_->call(block, nullptr));
}

at::Tensor Decoder::run_layer(int64_t n, const at::Tensor& x_BTD, const TokenBlock& block) {
  RETORT_ASSERT(n >= 0 && n < state_->spec.layers);
  return state_->layers->run(n, {x_BTD}, state_->call(block, nullptr)).sum();
}

std::vector<std::vector<const Parameter*>> Decoder::groups() const {
  const State& s = *state_;
  std::vector<std::vector<const Parameter*>> out{{s.embed, s.positions}};
  for (int64_t n = 0; n < s.spec.layers; ++n) out.push_back(s.layers->weights(n));
  out.push_back({s.final_norm.weight, s.final_norm.bias, s.head});
  for (auto& group : out) std::erase(group, nullptr);
  return out;
}

void Decoder::on_use(Use use) { state_->reads.on_use(std::move(use)); }

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
Head Decoder::head() const {
  state_->reads.forward(state_->last_group());
  return head_of(*state_->head, state_->spec, *state_->head_adapter);
}
void Decoder::set_tokens(int64_t ids) { state_->spec.set_tokens(ids); }
Parameters& Decoder::parameters() { return state_->parameters; }
const Parameters& Decoder::parameters() const { return state_->parameters; }
int64_t Decoder::vocabulary() const { return state_->spec.vocabulary; }
int64_t Decoder::context() const { return state_->spec.context; }
int64_t Decoder::width() const { return state_->spec.width; }
int64_t Decoder::layers() const { return state_->spec.layers; }

}  // namespace retort::models
