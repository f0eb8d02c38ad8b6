#include <limits>

#include "core/error.h"
#include "models/family.h"

namespace retort::models {
namespace {

void check_size(const char* key, int64_t value, int64_t low, int64_t high) {
  check<ConfigError>(value >= low && value <= high, "model.{} must lie in [{}, {}], got {}", key, low, high,
                     value);
}

void check_multiple(const char* key, int64_t value, const char* of, int64_t divisor) {
  check<ConfigError>(value % divisor == 0, "model.{} must be a multiple of model.{}, got {} and {}", key, of,
                     value, divisor);
}

void check_positive(const char* key, double value) {
  check<ConfigError>(value > 0 && value < std::numeric_limits<double>::infinity(),
                     "model.{} must be > 0, got {}", key, value);
}

void check_not_negative(const char* key, double value) {
  if (value != 0) check_positive(key, value);
}

void validate_longrope(const DecoderSpec& s) {
  const kernels::RopeScaling& r = s.rope_scaling;
  check_size("rope_scaling.original_context", r.original_context, 2, int64_t{1} << 31);
  check_not_negative("rope_scaling.attention_factor", r.attention_factor);
  for (const auto& [key, factors] : {std::pair{"rope_scaling.short_factor", &r.short_factor},
                                     std::pair{"rope_scaling.long_factor", &r.long_factor}}) {
    check<ConfigError>(std::ssize(*factors) == s.head_dim / 2,
                       "model.{} must hold model.head_dim / 2 = {} numbers, got {}", key, s.head_dim / 2,
                       factors->size());
    for (const double factor : *factors) check_positive(key, factor);
  }
}

void validate_attention(const DecoderSpec& s) {
  check_size("window", s.window, 0, int64_t{1} << 31);
  check_size("global_every", s.global_every, 0, int64_t{1} << 31);
  check<ConfigError>(s.window > 0 || (s.global_every == 0 && s.rope_local_theta == 0),
                     "model.global_every and rope_local_theta need model.window, got {} and {} without it",
                     s.global_every, s.rope_local_theta);
  check_not_negative("rope_local_theta", s.rope_local_theta);
  check_not_negative("query_scalar", s.query_scalar);
  check<ConfigError>(!s.qk_norm || s.norm != NormKind::kLayer, "model.qk_norm needs an RMS norm");
}

void validate_positions(const DecoderSpec& s) {
  if (s.positions != PositionKind::kRope) return;
  check<ConfigError>(s.head_dim % 2 == 0, "model.head_dim must be even for rotary positions, got {}",
                     s.head_dim);
  check_positive("rope_theta", s.rope_theta);
  const kernels::RopeScaling& r = s.rope_scaling;
  check<ConfigError>(r.kind == "none" || r.kind == "linear" || r.kind == "llama3" || r.kind == "longrope",
                     "model.rope_scaling.kind must be none, linear, llama3 or longrope, got \"{}\"", r.kind);
  check_positive("rope_scaling.factor", r.factor);
  if (r.kind == "longrope") validate_longrope(s);
  if (r.kind != "llama3") return;
  check_positive("rope_scaling.low_freq_factor", r.low_freq_factor);
  check<ConfigError>(r.high_freq_factor > r.low_freq_factor,
                     "model.rope_scaling.high_freq_factor must be above low_freq_factor, got {} and {}",
                     r.high_freq_factor, r.low_freq_factor);
  check_size("rope_scaling.original_context", r.original_context, 1, int64_t{1} << 31);
}

void validate_sharing(const DecoderSpec& s) {
  check_size("repeat", s.repeat, 1, 4096);
  check_multiple("layers", s.layers, "repeat", s.repeat);
  check_size("share.keep_first", s.keep_first, 0, s.layers - 1);
  check_size("share.keep_last", s.keep_last, 0, s.layers - 1 - s.keep_first);
  check_multiple("share.keep_first", s.keep_first, "repeat", s.repeat);
  check_multiple("share.keep_last", s.keep_last, "repeat", s.repeat);
  check<ConfigError>(s.share_ffn || s.share_output || s.keep_first + s.keep_last == 0,
                     "model.share.keep_first and keep_last need something that is shared, got {} and {}",
                     s.keep_first, s.keep_last);
  check<ConfigError>(s.share_ffn || s.lora_rank == 0,
                     "model.share.lora_rank needs model.share.ffn all, got {} without it", s.lora_rank);
  check_size("share.lora_rank", s.lora_rank, 0, std::min(s.width, s.ffn_width));
}

}  // namespace

// The upper bounds keep every product far from overflow when the numbers come from a hostile file.
void DecoderSpec::set_tokens(int64_t ids) {
  check<InternalError>(ids > 0 && ids <= vocabulary, "[decoder] tokens must lie in [1, {}], got {}",
                       vocabulary, ids);
  tokens = ids < vocabulary ? ids : 0;
}

void DecoderSpec::validate() const {
  const Family& row = families().at(family);
  check_size("vocabulary", vocabulary, 1, int64_t{1} << 24);
  check_size("context", context, 1, int64_t{1} << 24);
  check_size("layers", layers, 1, 4096);
  check_size("width", width, 1, int64_t{1} << 20);
  check_size("heads", heads, 1, 4096);
  check_size("kv_heads", kv_heads, 1, 4096);
  check_size("head_dim", head_dim, 1, 4096);
  check_size("ffn_width", ffn_width, 1, int64_t{1} << 22);
  check_multiple("heads", heads, "kv_heads", kv_heads);
  check_positive("norm_eps", norm_eps);
  check_not_negative("logit_softcap", logit_softcap);
  validate_attention(*this);
  validate_positions(*this);
  validate_sharing(*this);
  check<ConfigError>(row.make || !patch, "model.patch must not be given for model.family {}", family);
  row.check(*this);
}

}  // namespace retort::models
