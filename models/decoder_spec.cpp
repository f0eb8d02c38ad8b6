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

void validate_positions(const DecoderSpec& s) {
  if (s.positions != PositionKind::kRope) return;
  check<ConfigError>(s.head_dim % 2 == 0, "model.head_dim must be even for rotary positions, got {}",
                     s.head_dim);
  check_positive("rope_theta", s.rope_theta);
  const kernels::RopeScaling& r = s.rope_scaling;
  check<ConfigError>(r.kind == "none" || r.kind == "linear" || r.kind == "llama3",
                     "model.rope_scaling.kind must be none, linear or llama3, got \"{}\"", r.kind);
  check_positive("rope_scaling.factor", r.factor);
  if (r.kind != "llama3") return;
  check_positive("rope_scaling.low_freq_factor", r.low_freq_factor);
  check<ConfigError>(r.high_freq_factor > r.low_freq_factor,
                     "model.rope_scaling.high_freq_factor must be above low_freq_factor, got {} and {}",
                     r.high_freq_factor, r.low_freq_factor);
  check_size("rope_scaling.original_context", r.original_context, 1, int64_t{1} << 31);
}

}  // namespace

// The upper bounds keep every product far from overflow when the numbers come from a hostile file.
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
  check_size("repeat", repeat, 1, 4096);
  check_multiple("heads", heads, "kv_heads", kv_heads);
  check_multiple("layers", layers, "repeat", repeat);
  check_positive("norm_eps", norm_eps);
  validate_positions(*this);
  row.check(*this);
}

bool DecoderSpec::operator==(const DecoderSpec& o) const {
  const auto all = [](const DecoderSpec& s) {
    const kernels::RopeScaling& r = s.rope_scaling;
    return std::tie(s.family, s.vocabulary, s.context, s.layers, s.width, s.heads, s.kv_heads, s.head_dim,
                    s.ffn_width, s.norm, s.norm_eps, s.ffn, s.positions, s.rope_theta, r.kind, r.factor,
                    r.low_freq_factor, r.high_freq_factor, r.original_context, s.attention_bias, s.ffn_bias,
                    s.tie_embeddings, s.share_ffn, s.repeat);
  };
  return all(*this) == all(o);
}

}  // namespace retort::models
