// B batch, T tokens, P patches, D width.
#include "models/bytes/patch_model.h"

#include "core/error.h"
#include "core/shape.h"

namespace retort::models {

PatchModel::PatchModel(DecoderSpec spec, at::Device device) : spec_(std::move(spec)), parameters_(device) {
  spec_.validate();
}

DecoderSpec PatchModel::core_spec() const {
  DecoderSpec core = spec_;
  core.patch.reset();
  return core;
}

DecoderSpec PatchModel::byte_spec(int64_t layers) const {
  const PatchSpec& patch = *spec_.patch;
  DecoderSpec bytes = core_spec();
  bytes.layers = layers;
  bytes.width = patch.width;
  bytes.heads = bytes.kv_heads = patch.heads;
  bytes.head_dim = patch.width / patch.heads;
  bytes.ffn_width = patch.ffn_width;
  bytes.window = patch.window;
  bytes.share_ffn = bytes.share_output = false;
  bytes.keep_first = bytes.keep_last = bytes.lora_rank = 0;
  bytes.repeat = 1;
  return bytes;
}

void PatchModel::declare_embedding() {
  embed_ = &parameters_.add("embed.weight", {spec_.vocabulary, spec_.patch->width}, Role::kEmbedding);
}

void PatchModel::declare_head() {
  if (spec_.tie_embeddings) {
    parameters_.alias("lm_head.weight", "embed.weight");
    head_ = embed_;
  } else {
    head_ = &parameters_.add("lm_head.weight", {spec_.vocabulary, spec_.patch->width}, Role::kHead);
  }
}

at::Tensor PatchModel::hidden(const TokenBlock& block, KvCache* cache) {
  check_shape("patch model", "tokens_BT", block.tokens_BT, {-1, -1});
  check(block.taps == nullptr, "[patch model] has no layers to tap");
  check(!block.noise_BTD.defined(), "[patch model] takes no noise: a byte is embedded in several places");
  TokenBlock all = block;
  if (cache) {
    check(!block.document_BT.defined() && !block.positions_BT.defined(),
          "[patch model] a cache continues one document from its start: give tokens only");
    if (cache->length() > 0)
      all.tokens_BT = at::cat({cache->tokens_BT.narrow(1, 0, cache->length()), block.tokens_BT}, 1);
    cache->tokens_BT = all.tokens_BT;
    cache->advance(block.tokens_BT.size(1));
  }
  const int64_t B = all.tokens_BT.size(0), T = all.tokens_BT.size(1);
  if (all.tokens_BT.is_cpu() && all.tokens_BT.numel() > 0) {
    const auto [low, high] = at::aminmax(all.tokens_BT);
    check<DataError>(low.item<int64_t>() >= 0 && high.item<int64_t>() < spec_.vocabulary,
                     "[patch model] tokens must lie in [0, {}), got {} to {}", spec_.vocabulary,
                     low.item<int64_t>(), high.item<int64_t>());
  }
  check<DataError>(T <= spec_.context, "[patch model] a sequence must fit the context of {}, got {} tokens",
                   spec_.context, T);
  if (!all.positions_BT.defined()) all.positions_BT = at::arange(T, all.tokens_BT.options()).expand({B, T});
  check_shape("patch model", "positions_BT", all.positions_BT, {B, T});
  return run(all).narrow(1, T - block.tokens_BT.size(1), block.tokens_BT.size(1));
}

std::unique_ptr<KvCache> PatchModel::make_cache(int64_t batch, int64_t capacity) const {
  return std::make_unique<KvCache>(0, batch, 1, 1, capacity);
}

double PatchModel::flops_per_token(int64_t tokens) const {
  double executed = static_cast<double>(spec_.vocabulary * spec_.patch->width);  // the head
  for (const Parameter& p : parameters_.unique())
    if (p.role == Role::kMatrix || is_adapter(p.role))
      executed += static_cast<double>(p.numel()) * static_cast<double>(p.uses.size()) * runs(p);
  return 6.0 * executed + 12.0 * attended(tokens);
}

void check_patch_spec(const DecoderSpec& s) {
  const auto check_size = [](const char* key, int64_t value, int64_t low, int64_t high) {
    check<ConfigError>(value >= low && value <= high, "model.patch.{} must lie in [{}, {}], got {}", key, low,
                       high, value);
  };
  check<ConfigError>(s.patch.has_value(), "model.patch must be given for model.family {}", s.family);
  const PatchSpec& p = *s.patch;
  check_size("width", p.width, 1, int64_t{1} << 20);
  check_size("layers", p.layers, 1, 4096);
  check_size("heads", p.heads, 1, 4096);
  check_size("ffn_width", p.ffn_width, 1, int64_t{1} << 22);
  check_size("window", p.window, 0, int64_t{1} << 31);
  check_size("longest", p.longest, 0, 4096);
  check<ConfigError>(p.width % (2 * p.heads) == 0,
                     "model.patch.width must be an even multiple of model.patch.heads, got {} and {}",
                     p.width, p.heads);
  check<ConfigError>(s.norm == NormKind::kRms && s.positions == PositionKind::kRope,
                     "model.family {} has norm rms and positions rope", s.family);
  check<ConfigError>(s.rope_scaling.kind == "none" && s.window == 0 && !s.scale_embeddings,
                     "model.family {} takes neither rope_scaling, window nor scale_embeddings", s.family);
}

}  // namespace retort::models
