// The byte model of SuperTinyLanguageModels (Hillier et al. 2024, arXiv 2405.14159), where docs/models.md says it differs:
//
//   encoder         embed[bytes] + position; 4 blocks, not causal, E to 2E to 2E to 2E to D; mean over slots
//   core            the spec's own layers, no final norm; before a document's first patch its output is 0
//   parallel        D to S x E, + position; blocks not causal over the S slots; head
//   autoregressive  embed[byte] + (core to E), causal byte layers over the next patch's bytes so far; norm; head
//   block           x = x + attention(norm(x));  x = W2 gelu(W1 norm(x))
//
// B batch, T tokens, P patches, S slots, D width of the core, E of bytes, W width of a block, H heads, K head dimension.
#include <cmath>

#include "core/error.h"
#include "kernels/activation.h"
#include "models/bytes/patch_model.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

struct Block {
  Norm attn_norm, ffn_norm;
  Linear q, k, v, o, up, down;
  int64_t heads;

  Block(const Scope& scope, int64_t in, int64_t ffn, int64_t out, int64_t head_count)
      : attn_norm(scope.norm("attn_norm", in)),
        ffn_norm(scope.norm("ffn_norm", in)),
        q(scope.linear("attn.q", in, in, false)),
        k(scope.linear("attn.k", in, in, false)),
        v(scope.linear("attn.v", in, in, false)),
        o(scope.linear("attn.o", in, in, false)),
        up(scope.linear("ffn.up", ffn, in, false)),
        down(scope.linear("ffn.down", out, ffn, false)),
        heads(head_count) {}

  at::Tensor operator()(const at::Tensor& x_NSW) const {
    const int64_t N = x_NSW.size(0), S = x_NSW.size(1), W = x_NSW.size(2);
    const at::Tensor h_NSW = attn_norm(x_NSW);
    const auto split = [&](const Linear& linear) {
      return linear(h_NSW).to(at::kFloat).view({N, S, heads, W / heads}).transpose(1, 2);
    };
    const double scale = 1.0 / std::sqrt(static_cast<double>(W / heads));
    const at::Tensor p_NHSS = at::softmax(at::matmul(split(q), split(k).transpose(2, 3)) * scale, -1);
    const at::Tensor y_NSW = at::matmul(p_NHSS, split(v)).transpose(1, 2).reshape({N, S, W});
    const at::Tensor sum_NSW = x_NSW + o(y_NSW).to(at::kFloat);
    return down(kernels::gelu_tanh(up(ffn_norm(sum_NSW)))).to(at::kFloat);
  }
};

class Stlm final : public PatchModel {
 public:
  Stlm(DecoderSpec spec, at::Device device) : PatchModel(std::move(spec), device) {
    const int64_t E = spec_.patch->width, S = spec_.patch->longest, D = spec_.width;
    declare_embedding();
    encoder_positions_ = &parameters_.add("encoder.positions.weight", {S, E}, Role::kPositions);
    const int64_t widths[] = {E, 2 * E, 2 * E, 2 * E, D};
    for (int64_t n = 0; n < 4; ++n)
      encoder_.push_back(
          block(fmt::format("encoder.blocks.{}.", n), widths[n], n == 0 ? 4 * E : 8 * E, widths[n + 1]));
    core_.emplace(parameters_, core_spec(), "core.");
    const Scope head(parameters_, spec_, "head.", "head.");
    in_ = head.linear("in", spec_.patch->parallel ? S * E : E, D, false);
    if (spec_.patch->parallel) {
      head_positions_ = head.tensor("positions.weight", {S, E}, Role::kPositions);
      for (int64_t n = 0; n < spec_.patch->layers; ++n)
        head_blocks_.push_back(block(fmt::format("head.blocks.{}.", n), E, spec_.patch->ffn_width, E));
    } else {
      head_layers_.emplace(parameters_, byte_spec(spec_.patch->layers), "head.");
      final_norm_ = Scope(parameters_, spec_, "", "").norm("final_norm", E);
    }
    declare_head();
  }

 protected:
  at::Tensor run(const TokenBlock& block) override {
    const PatchRule rule{.longest = spec_.patch->longest, .stops = spec_.vocabulary > kStopToken};
    const Patches patches = find_patches(block.tokens_BT, block.document_BT, rule);
    core_->prepare(spec_.context, embed_->working.device());
    const LayerCall call{
        .positions_BT =
            at::arange(patches.last_BP.size(1), patches.last_BP.options()).expand_as(patches.last_BP),
        .mask = {.document_BS = patches.document_BP}};
    const at::Tensor core_BPD = (*core_)(encode(patches.tokens_BPS), call).sum();
    return spec_.patch->parallel ? parallel(core_BPD, patches) : autoregressive(core_BPD, patches, block);
  }

  double runs(const Parameter& p) const override {
    const double slots = static_cast<double>(spec_.patch->longest) / kBytesPerPatch;
    if (p.name.starts_with("encoder.")) return slots;
    if (p.name.starts_with("core.")) return 1.0 / kBytesPerPatch;
    if (!spec_.patch->parallel) return 1.0;
    return p.name == "head.in.weight" ? 1.0 / kBytesPerPatch : slots;
  }
  // Within a patch the byte layers meet half its slots or less: what the core meets is all that counts.
  double attended(int64_t tokens) const override {
    return static_cast<double>(spec_.layers * spec_.heads * spec_.head_dim) * static_cast<double>(tokens) /
           kBytesPerPatch / kBytesPerPatch;
  }

 private:
  Block block(const std::string& prefix, int64_t in, int64_t ffn, int64_t out) {
    return {Scope(parameters_, spec_, prefix, prefix), in, ffn, out, spec_.patch->heads};
  }

  at::Tensor encode(const at::Tensor& tokens_BPS) const {
    at::Tensor x_NSE = embedded(tokens_BPS.clamp_max(spec_.vocabulary - 1)).flatten(0, 1);
    if (spec_.vocabulary <= kStopToken)  // no row for padding
      x_NSE = x_NSE * tokens_BPS.ne(kStopToken).flatten(0, 1).unsqueeze(-1);
    x_NSE = x_NSE + encoder_positions_->working;
    for (const Block& layer : encoder_) x_NSE = layer(x_NSE);
    return x_NSE.mean(1).view({tokens_BPS.size(0), tokens_BPS.size(1), spec_.width});
  }

  // Slots of the patch after each patch, and after none: row i of 1 + B P, slot s is number i S + s.
  at::Tensor parallel(const at::Tensor& core_BPD, const Patches& patches) const {
    const int64_t E = spec_.patch->width, S = spec_.patch->longest;
    const at::Tensor c_ND = at::constant_pad_nd(core_BPD.flatten(0, 1), {0, 0, 1, 0});
    at::Tensor x_NSE = in_(c_ND).to(at::kFloat).view({-1, S, E}) + head_positions_->working;
    for (const Block& layer : head_blocks_) x_NSE = layer(x_NSE);
    return take_rows(x_NSE, patches.done_BT * S + patches.slot_BT, /*zero=*/false);
  }

  at::Tensor autoregressive(const at::Tensor& core_BPD, const Patches& patches, const TokenBlock& block) {
    head_layers_->prepare(spec_.patch->longest, embed_->working.device());
    const at::Tensor told_BPE = in_(core_BPD).to(at::kFloat);
    const at::Tensor x_BTE = embedded(block.tokens_BT) + take_rows(told_BPE, patches.done_BT, /*zero=*/true);
    const LayerCall call{.positions_BT = patches.slot_BT, .mask = {.document_BS = patches.next_BT}};
    Residual stream = (*head_layers_)(x_BTE, call);
    return final_norm_(stream);
  }

  const Parameter* encoder_positions_ = nullptr;
  const Parameter* head_positions_ = nullptr;  // parallel
  std::vector<Block> encoder_, head_blocks_;
  std::optional<Layers> core_, head_layers_;
  Linear in_;
  Norm final_norm_;
};

void check_spec(const DecoderSpec& s) {
  check_patch_spec(s);
  const PatchSpec& p = *s.patch;
  check<ConfigError>(p.longest >= 2, "model.patch.longest must be >= 2 for stlm, got {}", p.longest);
  check<ConfigError>(p.window == 0, "model.patch.window belongs to model.family spacebyte, got {}", p.window);
  check<ConfigError>(s.vocabulary >= 256, "model.vocabulary must be >= 256 for stlm, got {}", s.vocabulary);
  check<ConfigError>(!p.parallel || s.vocabulary > kStopToken,
                     "model.vocabulary must be 257 for model.patch.head parallel (bytes and a stop), got {}",
                     s.vocabulary);
}

}  // namespace

Family stlm_family() {
  Family family;
  family.name = family.defaults.family = "stlm";
  family.defaults.patch = PatchSpec{.longest = 12};
  family.check = check_spec;
  family.make = [](DecoderSpec spec, at::Device device) -> std::unique_ptr<Model> {
    return std::make_unique<Stlm>(std::move(spec), device);
  };
  return family;
}

}  // namespace retort::models
