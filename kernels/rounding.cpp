// Legend: a rule is a function object made for one group, x -> code; an output says what becomes of a code.
// Loops are plain and branch-free, so that the compiler vectorises every pair of them, once per target: all
// of it is inlined into the two functions that have targets.
#include "kernels/rounding.h"

#include <bit>

#include "core/each_target.h"
#include "core/error.h"

#define RETORT_INLINE [[gnu::always_inline]] inline

namespace retort::kernels {
namespace {

RETORT_INLINE float inverse_of(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

// Halves to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction (as ggml's nearest_int).
RETORT_INLINE int32_t nearest(float v) { return std::bit_cast<int32_t>(v + 12582912.0f) - 0x4b400000; }

// One group's numbers.
struct Group {
  float divisor, offset, lowest, highest;
};

struct NearestEven {
  float d, m, low, high;
  // A divisor of 0 has the lowest code alone.
  RETORT_INLINE explicit NearestEven(const Group& g)
      : d(g.divisor != 0.0f ? g.divisor : 1.0f),
        m(g.offset),
        low(g.lowest),
        high(g.divisor != 0.0f ? g.highest : g.lowest) {}
  RETORT_INLINE int32_t operator()(float x) const { return nearest(clamped((x - m) / d, low, high)); }
};

struct NearestAway {
  float inverse, low, high;
  RETORT_INLINE explicit NearestAway(const Group& g)
      : inverse(inverse_of(g.divisor)), low(g.lowest), high(g.highest) {}
  RETORT_INLINE int32_t operator()(float x) const {  // roundf; the rest is exact
    const float v = clamped(x * inverse, low, high);
    const auto whole = static_cast<int32_t>(v);
    const float rest = v - static_cast<float>(whole);
    return whole + static_cast<int32_t>(rest >= 0.5f) - static_cast<int32_t>(rest <= -0.5f);
  }
};

struct Truncate {
  float inverse, shift, levels;
  int32_t lowest;
  RETORT_INLINE explicit Truncate(const Group& g)
      : inverse(inverse_of(g.divisor)),
        shift(0.5f - g.lowest),
        levels(g.highest - g.lowest),
        lowest(static_cast<int32_t>(g.lowest)) {}
  RETORT_INLINE int32_t operator()(float x) const {
    return static_cast<int32_t>(clamped(x * inverse + shift, 0.0f, levels)) + lowest;
  }
};

struct Odd {
  float inverse, low, high;
  RETORT_INLINE explicit Odd(const Group& g)
      : inverse(inverse_of(g.divisor)), low(g.lowest), high(g.highest) {}
  RETORT_INLINE int32_t operator()(float x) const {
    return 2 * nearest(0.5f * clamped(x * inverse, low, high) - 0.5f) + 1;
  }
};

struct Sign {
  RETORT_INLINE explicit Sign(const Group&) {}
  RETORT_INLINE int32_t operator()(float x) const { return x >= 0.0f ? 1 : -1; }
};

// The midpoints of neighbours, twice: .5 1.5 2.5 3.5 5 7 10. A code is the sum of the steps that were passed;
// kEven: every other midpoint is a step already.
template <bool kEven>
struct Float4 {
  float d;
  RETORT_INLINE explicit Float4(const Group& g) : d(g.divisor != 0.0f ? g.divisor : 1.0f) {}
  RETORT_INLINE static int32_t up(float size, float midpoint) {
    return static_cast<int32_t>(kEven ? size >= midpoint : size > midpoint);
  }
  RETORT_INLINE int32_t operator()(float x) const {
    const float v = x / d, size = v < 0.0f ? -v : v;
    const int32_t code = static_cast<int32_t>(size > 0.5f) + up(size, 1.5f) +
                         static_cast<int32_t>(size > 2.5f) + up(size, 3.5f) +
                         2 * static_cast<int32_t>(size > 5.0f) + 2 * up(size, 7.0f) +
                         4 * static_cast<int32_t>(size > 10.0f);
    return v < 0.0f ? -code : code;
  }
};

// E4M3: three bits of fraction, below 2^-6 multiples of 2^-9. Adding the power of two whose last bit is the
// last that stays rounds to it, halves to even. NaN stays NaN.
struct Float8 {
  float d;
  RETORT_INLINE explicit Float8(const Group& g) : d(g.divisor) {}
  RETORT_INLINE float operator()(float x) const {
    const float v = d != 0.0f ? x / d : 0.0f, size = v < 0.0f ? -v : v, kept = size > 448.0f ? 448.0f : size;
    const uint32_t exponent = std::bit_cast<uint32_t>(kept) & 0x7f800000, least = (127 - 6) << 23;
    const auto power = std::bit_cast<float>((exponent > least ? exponent : least) + (20u << 23));
    const uint32_t sign = std::bit_cast<uint32_t>(v) & 0x80000000;
    return std::bit_cast<float>(std::bit_cast<uint32_t>((kept + power) - power) | sign);
  }
};

struct Codes {
  int8_t* codes;
  template <class Rule>
  RETORT_INLINE void operator()(const Rule& rule, const float* x, int64_t g, int64_t group) const {
    int8_t* out = codes + g * group;
#pragma GCC ivdep
    for (int64_t j = 0; j < group; ++j) out[j] = static_cast<int8_t>(rule(x[j]));
  }
};

struct Values {
  float* values;
  const float *scale, *offset;
  template <class Rule>
  RETORT_INLINE void operator()(const Rule& rule, const float* x, int64_t g, int64_t group) const {
    const float d = scale[g], m = offset ? offset[g] : 0.0f;
    float* out = values + g * group;
    if (offset != nullptr) {  // a sum with 0 would turn -0 into 0
#pragma GCC ivdep
      for (int64_t j = 0; j < group; ++j) out[j] = d * static_cast<float>(rule(x[j])) + m;
    } else {
#pragma GCC ivdep
      for (int64_t j = 0; j < group; ++j) out[j] = d * static_cast<float>(rule(x[j]));
    }
  }
};

struct Run {
  const float *x, *divisor, *offset;
  int64_t groups, group;
  const Rounding& rounding;
};

template <class Rule, class Out>
RETORT_INLINE void round_with(const Run& run, const Out& out) {
  const auto low = static_cast<float>(run.rounding.lowest), high = static_cast<float>(run.rounding.highest);
  const float* x = run.x;
  for (int64_t g = 0; g < run.groups; ++g, x += run.group) {
    const Rule rule({run.divisor[g], run.offset ? run.offset[g] : 0.0f, low, high});
    if (run.group == 32)  // a constant length unrolls
      out(rule, x, g, 32);
    else
      out(rule, x, g, run.group);
  }
}

template <class Out>
RETORT_INLINE void round_into(const Run& run, const Out& out) {
  switch (run.rounding.rule) {
    case RoundRule::kNearestEven:
      return round_with<NearestEven>(run, out);
    case RoundRule::kNearestAway:
      return round_with<NearestAway>(run, out);
    case RoundRule::kTruncate:
      return round_with<Truncate>(run, out);
    case RoundRule::kOdd:
      return round_with<Odd>(run, out);
    case RoundRule::kSign:
      return round_with<Sign>(run, out);
    case RoundRule::kFloat4:
      return round_with<Float4<false>>(run, out);
    case RoundRule::kFloat4Even:
      return round_with<Float4<true>>(run, out);
    case RoundRule::kFloat8:
      return round_with<Float8>(run, out);
  }
}

RETORT_EACH_TARGET
void run_to_codes(const Run& run, const Codes& out) { round_into(run, out); }

RETORT_EACH_TARGET
void run_to_values(const Run& run, const Values& out) { round_into(run, out); }

}  // namespace

void round_groups(const float* x, const float* divisor, const float* offset, int8_t* codes, int64_t groups,
                  int64_t group, const Rounding& rounding) {
  RETORT_ASSERT(rounding.rule != RoundRule::kFloat8);
  run_to_codes({x, divisor, offset, groups, group, rounding}, {codes});
}

void round_to_values(const float* x, const float* divisor, const float* scale, const float* offset,
                     float* values, int64_t groups, int64_t group, const Rounding& rounding) {
  run_to_values({x, divisor, offset, groups, group, rounding}, {values, scale, offset});
}

}  // namespace retort::kernels
