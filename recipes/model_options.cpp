#include "recipes/model_options.h"

#include <algorithm>

#include "models/family.h"
#include "models/spec_json.h"
#include "recipes/address.h"

namespace retort::recipes {
namespace {

// Sizes have bounds that their products cannot overflow.
Rule<int64_t> size(int64_t low, int bits) {
  return between(low, int64_t{1} << bits);
}

struct ShareOptions {
  models::DecoderSpec& spec;
  void describe(Section& s) {
    share(s, "ffn", spec.share_ffn, "layers that use one feed-forward network");
    share(s, "attention_output", spec.share_output, "layers that use one output projection of attention");
    s.field("keep_first", spec.keep_first, "layers at the start that keep their own weights", size(0, 12));
    s.field("keep_last", spec.keep_last, "layers at the end that keep their own weights", size(0, 12));
    s.field("lora_rank", spec.lora_rank,
            "rank of the adapter that each layer adds to the shared feed-forward network; 0: none; exports "
            "merge it",
            size(0, 12));
  }
  static void share(Section& s, const char* name, bool& shared, const char* doc) {
    std::string word = shared ? "all" : "none";
    s.field(name, word, doc, one_of({"none", "all"}));
    shared = word == "all";
  }
};

struct ScalingOptions {
  kernels::RopeScaling& scaling;
  void describe(Section& s) {
    s.field("kind", scaling.kind, "method that stretches rotary positions beyond the trained context",
            one_of({"none", "linear", "llama3", "longrope"}));
    s.field("factor", scaling.factor, "factor of the stretch", above(0.0));
    s.field("low_freq_factor", scaling.low_freq_factor,
            "turns in the original context below which a frequency is stretched (llama3)", above(0.0));
    s.field("high_freq_factor", scaling.high_freq_factor,
            "turns in the original context above which a frequency stays (llama3)", above(0.0));
    s.field("original_context", scaling.original_context,
            "context that the model was trained with (llama3, longrope)", at_least<int64_t>(1));
    s.field("attention_factor", scaling.attention_factor,
            "factor of cos and sin (longrope); 0: sqrt(1 + ln factor / ln original_context)", at_least(0.0));
    s.field("short_factor", scaling.short_factor,
            "divisors of the head_dim / 2 frequencies up to the original context (longrope)");
    s.field("long_factor", scaling.long_factor, "divisors of the frequencies beyond it (longrope)");
  }
};

void describe_share(Section& s, models::DecoderSpec& spec) {
  ShareOptions share{spec};
  s.section("share", share,
            "weights that layers have in common: one storage, one optimizer state, one copy in files");
  s.field("repeat", spec.repeat, "times that each stored block runs in a row; layers counts all of them",
          at_least<int64_t>(1));
}

struct PatchOptions : models::PatchSpec {
  void describe(Section& s) {
    PatchSpec& patch = *this;
    s.field("width", patch.width, "width of the byte layers", size(1, 20));
    s.field("layers", patch.layers,
            "number of byte layers; spacebyte: half of them before the core, stlm: of the head", size(1, 12));
    s.field("heads", patch.heads, "attention heads of the byte layers", size(1, 14));
    s.field("ffn_width", patch.ffn_width, "feed-forward width of the byte layers", size(1, 22));
    s.field("window", patch.window, "bytes that a byte sees in the byte layers (spacebyte); 0: all", size(0, 28));
    s.field("longest", patch.longest, "bytes of the longest patch (stlm)", size(0, 28));
    std::string head = patch.parallel ? "parallel" : "autoregressive";
    s.field("head", head,
            "way to predict a patch's bytes (stlm); parallel needs shards of the tokenizer bytes+stop",
            one_of({"autoregressive", "parallel"}));
    patch.parallel = head == "parallel";
  }
};

models::DecoderSpec family_defaults(const std::string& family) {
  models::DecoderSpec spec = models::families().at(family).defaults;
  spec.kv_heads = spec.head_dim = spec.ffn_width = 0;
  return spec;
}

void describe_patch(Section& s, models::DecoderSpec& spec) {
  std::optional<PatchOptions> patch;
  if (spec.patch) patch.emplace(PatchOptions{*spec.patch});
  s.optional("patch", patch, "layers over bytes of spacebyte and stlm; the keys above are the core's");
  spec.patch.reset();
  if (patch) spec.patch = *patch;
}

}  // namespace

ModelOptions::ModelOptions() : choices(family_defaults("llama")) {}

models::DecoderSpec ModelOptions::spec() const {
  models::DecoderSpec s = choices;
  if (s.kv_heads == 0) s.kv_heads = s.heads;
  if (s.head_dim == 0) s.head_dim = std::max<int64_t>(1, s.width / s.heads);
  if (s.ffn_width == 0)
    s.ffn_width = s.ffn == models::FfnKind::kGelu ? 4 * s.width : (s.width * 8 / 3 + 31) / 32 * 32;
  return s;
}

void ModelOptions::describe(Section& s) {
  s.field("from", from, fmt::format("weights and shape to start from: {}", kModelForms));
  if (!from.empty()) return;
  models::DecoderSpec& m = choices;
  const std::string before = m.family;
  s.field("family", m.family, "architecture, which decides whose files it is exported as",
          one_of(models::families().names()));
  if (m.family != before) m = family_defaults(m.family);
  s.field("vocabulary", m.vocabulary, "number of token ids, at least the tokenizer's", size(1, 28));
  s.field("context", m.context, "tokens of the longest sequence that positions allow", size(1, 28));
  s.field("layers", m.layers, "layers that run, shared ones counted each time", size(1, 12));
  s.field("width", m.width, "width of the residual stream; a multiple of 32 for quantized grids", size(1, 20));
  s.field("heads", m.heads, "query heads", size(1, 14));
  s.field("kv_heads", m.kv_heads, "key and value heads; 0: as many as heads", size(0, 14));
  s.field("head_dim", m.head_dim, "width of one head; 0: width / heads", size(0, 14));
  std::string ffn = models::to_word(m.ffn);
  s.field(
      "ffn", ffn,
      "feed-forward network, the family's own when left out; bitnet has two: relu2glu (squared ReLU), and "
      "swiglu, which a GGUF can say too",
      one_of(models::choice_words<models::FfnKind>()));
  m.ffn = models::from_word<models::FfnKind>(ffn);
  s.field("ffn_width", m.ffn_width, "feed-forward width; 0: 8/3 width (gelu: 4 width), rounded up to 32",
          size(0, 22));
  s.field("norm_eps", m.norm_eps, "number added to the variance in norms", above(0.0));
  s.field("rope_theta", m.rope_theta, "base of the rotary frequencies", above(0.0));
  ScalingOptions scaling{m.rope_scaling};
  s.section("rope_scaling", scaling, "rotary positions beyond the trained context");
  s.field("window", m.window, "keys that a query sees, its own included (phi3, gemma3); 0: all", size(0, 28));
  s.field("global_every", m.global_every,
          "distance between layers that see all keys despite the window (gemma3); 0: none does", size(0, 12));
  s.field("attention_bias", m.attention_bias, "add biases to q, k, v and o");
  s.field("ffn_bias", m.ffn_bias, "add biases to the feed-forward network");
  s.field("tie_embeddings", m.tie_embeddings, "use the token embedding as the output head");
  describe_share(s, m);
  describe_patch(s, m);
  s.optional("init", init, "weights cut from those of a teacher, and the keys above that are left out; without it: random ones");
}

}  // namespace retort::recipes
