// The scales of Q4_K, Q5_K and Q6_K: weighted least squares over a range of trial scales. Q6_K's as ggml
// searches them, sums in the same order; Q4_K's and Q5_K's from the same trials, then codes and scales in
// turn while that helps, which comes out as good as llama.cpp's own. Without an importance a value weighs by
// its size; with one (an importance matrix: mean squared activations a column) by importance * sqrt(2 mean
// x^2 + x^2).
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "formats/ggml_codec.h"

namespace retort::formats {
namespace {

constexpr int kBlock = 256;
constexpr float kZero = 1e-15f;  // what is smaller counts as zeros
constexpr int kRefinements = 8;

inline int nearest(float v) { return std::bit_cast<int32_t>(v + 12582912.0f) - 0x4b400000; }
inline int code_of(float v, int low, int high) {
  return nearest(kernels::clamped(v, static_cast<float>(low), static_cast<float>(high)));
}

// --- x ~ scale * q + minimum, q in 0 .. levels

struct Affine {
  float scale = 0, minimum = 0;  // minimum <= 0
};
struct Search {
  int levels;
  float first, step;  // trial k divides the range by levels + first + step * k
  int steps;
};

float weighted_error(const float* x, const float* w, const uint8_t* q, int count, const Affine& a) {
  float error = 0;
  for (int i = 0; i < count; ++i) {
    const float miss = a.scale * q[i] + a.minimum - x[i];
    error += w[i] * (miss * miss);
  }
  return error;
}

// The least-squares scale and minimum of given codes; nothing where they do not determine both.
std::optional<Affine> solve(const float* x, const float* w, const uint8_t* q, int count, float sum_w,
                            float sum_x) {
  float sum_q = 0, sum_q2 = 0, sum_xq = 0;
  for (int i = 0; i < count; ++i) {
    const float code = q[i];
    sum_q += w[i] * code;
    sum_q2 += w[i] * code * code;
    sum_xq += w[i] * code * x[i];
  }
  const float determinant = sum_w * sum_q2 - sum_q * sum_q;
  if (!(determinant > 0)) return std::nullopt;
  const Affine a{(sum_w * sum_xq - sum_x * sum_q) / determinant,
                 (sum_q2 * sum_x - sum_q * sum_xq) / determinant};
  return a.minimum > 0 ? Affine{sum_xq / sum_q2, 0} : a;
}

Affine search_affine(const float* x, const float* w, int count, const Search& search) {
  float least = x[0], most = x[0], sum_w = w[0], sum_x = sum_w * x[0];
  for (int i = 1; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  least = least > 0 ? 0 : least;
  if (!(most > least)) return {0, least};
  std::array<uint8_t, 32> q;
  const auto codes_at = [&](float inverse, float minimum) {
    for (int i = 0; i < count; ++i)
      q[static_cast<size_t>(i)] = static_cast<uint8_t>(code_of(inverse * (x[i] - minimum), 0, search.levels));
  };
  const auto levels = static_cast<float>(search.levels);
  const float plain = levels / (most - least);
  Affine best{1 / plain, least};
  codes_at(plain, least);
  float best_error = weighted_error(x, w, q.data(), count, best);
  const auto improve = [&] {
    const auto trial = solve(x, w, q.data(), count, sum_w, sum_x);
    const float error = trial ? weighted_error(x, w, q.data(), count, *trial) : best_error;
    if (!(error < best_error)) return false;
    best = *trial, best_error = error;
    return true;
  };
  for (int k = 0; k <= search.steps; ++k) {
    codes_at((search.first + search.step * static_cast<float>(k) + levels) / (most - least), least);
    improve();
  }
  for (int k = 0; k < kRefinements && best.scale > 0; ++k) {
    codes_at(1 / best.scale, best.minimum);
    if (!improve()) break;
  }
  return best;
}

void weigh(const float* x, const float* importance, int count, float mean_square, float* w) {
  if (importance != nullptr) {
    for (int i = 0; i < count; ++i) w[i] = importance[i] * std::sqrt(2 * mean_square + x[i] * x[i]);
    return;
  }
  float square = 0;
  for (int i = 0; i < count; ++i) square += x[i] * x[i];
  const float size = std::sqrt(square / static_cast<float>(count));
  for (int i = 0; i < count; ++i) w[i] = size + std::fabs(x[i]);
}

float mean_square(const float* x) {
  float square = 0;
  for (int i = 0; i < kBlock; ++i) square += x[i] * x[i];
  return square / kBlock;
}

void fit_affine_block(const float* x, const float* importance, const Search& search, float* scale,
                      float* offset, std::byte* header) {
  std::array<Affine, 8> found;
  float most_scale = 0, most_minimum = 0, w[32];
  const float square = importance != nullptr ? mean_square(x) : 0.0f;
  for (int j = 0; j < 8; ++j) {
    weigh(x + 32 * j, importance ? importance + 32 * j : nullptr, 32, square, w);
    Affine& a = found[static_cast<size_t>(j)];
    a = search_affine(x + 32 * j, w, 32, search);
    most_scale = std::max(most_scale, a.scale);
    most_minimum = std::max(most_minimum, -a.minimum);
  }
  const float per_scale = most_scale > 0 ? 63.0f / most_scale : 0.0f;
  const float per_minimum = most_minimum > 0 ? 63.0f / most_minimum : 0.0f;
  std::array<ScaleAndMinimum, 8> six;
  for (size_t j = 0; j < 8; ++j)
    six[j] = {static_cast<uint8_t>(code_of(per_scale * found[j].scale, 0, 63)),
              static_cast<uint8_t>(code_of(per_minimum * -found[j].minimum, 0, 63))};
  store_half(header, most_scale / 63.0f);
  store_half(header + 2, most_minimum / 63.0f);
  store_six_bits(six.data(), reinterpret_cast<uint8_t*>(header) + 4);
  const float d = load_half(header), dmin = load_half(header + 2);
  for (size_t j = 0; j < 8; ++j) {
    scale[j] = d * static_cast<float>(six[j].scale);
    offset[j] = -(dmin * static_cast<float>(six[j].minimum));
  }
}

void fit_affine(const float* x, const float* importance, const Search& search, const ScaleRun& out,
                int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock) {
    fit_affine_block(x, importance, search, out.scale + 8 * b, out.offset + 8 * b, out.header + 16 * b);
    if (!std::isfinite(mean_square(x))) std::fill_n(out.scale + 8 * b, 8, NAN);
    if (importance != nullptr) importance += kBlock;
  }
}

// --- x ~ scale * q, q in -32 .. 31

float search_signed(const float* x, const float* w, int count) {
  float most = 0, extreme = 0;
  for (int i = 0; i < count; ++i)
    if (std::fabs(x[i]) > most) most = std::fabs(x[i]), extreme = x[i];
  if (most < kZero) return 0;
  const auto sums_at = [&](float inverse) {
    float xq = 0, qq = 0;
    for (int i = 0; i < count; ++i) {
      const auto q = static_cast<float>(code_of(inverse * x[i], -32, 31));
      xq += w[i] * x[i] * q;
      qq += w[i] * q * q;
    }
    return std::pair(xq, qq);
  };
  const auto [xq, qq] = sums_at(-32.0f / extreme);
  float scale = qq != 0 ? xq / qq : 0.0f, best = scale * xq;
  for (int k = -9; k <= 9; ++k) {
    if (k == 0) continue;
    const auto [trial_xq, trial_qq] = sums_at(-(32.0f + 0.1f * static_cast<float>(k)) / extreme);
    if (trial_qq > 0 && trial_xq * trial_xq > best * trial_qq) {
      scale = trial_xq / trial_qq;
      best = scale * trial_xq;
    }
  }
  return scale;
}

void fit_q6_k_block(const float* x, const float* importance, float* scale, std::byte* header) {
  float found[16], most = 0, extreme = 0, w[16];
  for (int j = 0; j < 16; ++j) {
    const float* v = x + 16 * j;
    for (int i = 0; i < 16; ++i) w[i] = importance ? importance[16 * j + i] : v[i] * v[i];
    found[j] = search_signed(v, w, 16);
    if (std::fabs(found[j]) > most) most = std::fabs(found[j]), extreme = found[j];
  }
  std::memset(header, 0, 18);
  if (most >= kZero) {
    const float inverse = -128.0f / extreme;
    store_half(header + 16, 1 / inverse);
    for (int j = 0; j < 16; ++j) {
      const int sub = code_of(inverse * found[j], -128, 127);
      header[j] = static_cast<std::byte>(static_cast<int8_t>(sub));
    }
  }
  const float d = load_half(header + 16);
  for (int j = 0; j < 16; ++j) scale[j] = d * static_cast<float>(static_cast<int8_t>(header[j]));
}

}  // namespace

void fit_q4_k(const float* x, const float* importance, const ScaleRun& out, int64_t blocks) {
  fit_affine(x, importance, {15, -1.0f, 0.1f, 20}, out, blocks);
}

void fit_q5_k(const float* x, const float* importance, const ScaleRun& out, int64_t blocks) {
  fit_affine(x, importance, {31, -0.5f, 0.1f, 15}, out, blocks);
}

void fit_q6_k(const float* x, const float* importance, const ScaleRun& out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock) {
    fit_q6_k_block(x, importance, out.scale + 16 * b, out.header + 18 * b);
    if (!std::isfinite(mean_square(x))) std::fill_n(out.scale + 16 * b, 16, NAN);
    if (importance != nullptr) importance += kBlock;
  }
}

ScaleAndMinimum six_bits(const uint8_t* s, int j) {
  if (j < 4) return {static_cast<uint8_t>(s[j] & 63), static_cast<uint8_t>(s[j + 4] & 63)};
  return {static_cast<uint8_t>((s[j + 4] & 15) | (s[j - 4] >> 6) << 4),
          static_cast<uint8_t>((s[j + 4] >> 4) | (s[j] >> 6) << 4)};
}

void store_six_bits(const ScaleAndMinimum* pairs, uint8_t* s) {
  for (int j = 0; j < 4; ++j) {
    const ScaleAndMinimum &a = pairs[j], &b = pairs[j + 4];
    s[j] = static_cast<uint8_t>(a.scale | (b.scale >> 4) << 6);
    s[j + 4] = static_cast<uint8_t>(a.minimum | (b.minimum >> 4) << 6);
    s[j + 8] = static_cast<uint8_t>((b.scale & 15) | (b.minimum & 15) << 4);
  }
}

}  // namespace retort::formats
