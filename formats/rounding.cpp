// Legend: loops are plain and branch-free, so that the compiler vectorises them once per target.
#include "formats/rounding.h"

#include <bit>

#include "core/error.h"
#include "formats/each_target.h"

namespace retort::formats {
namespace {

inline float inverse_of(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

// Halves to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction (as ggml's nearest_int).
inline int32_t nearest(float v) { return std::bit_cast<int32_t>(v + 12582912.0f) - 0x4b400000; }

RETORT_EACH_TARGET
void nearest_even(const float* __restrict x, const float* divisor, const float* offset,
                  int8_t* __restrict codes, int64_t groups, int64_t group, float lowest, float highest) {
  for (int64_t g = 0; g < groups; ++g, x += group, codes += group) {
    const float d = divisor[g], m = offset ? offset[g] : 0.0f;
    if (d == 0.0f) {
      for (int64_t j = 0; j < group; ++j) codes[j] = static_cast<int8_t>(lowest);
      continue;
    }
    for (int64_t j = 0; j < group; ++j)
      codes[j] = static_cast<int8_t>(nearest(clamped((x[j] - m) / d, lowest, highest)));
  }
}

RETORT_EACH_TARGET
void nearest_away(const float* __restrict x, const float* divisor, int8_t* __restrict codes, int64_t groups,
                  int64_t group, float lowest, float highest) {
  for (int64_t g = 0; g < groups; ++g, x += group, codes += group) {
    const float inverse = inverse_of(divisor[g]);
    for (int64_t j = 0; j < group; ++j) {  // roundf; the rest is exact
      const float v = clamped(x[j] * inverse, lowest, highest);
      const auto whole = static_cast<int32_t>(v);
      const float rest = v - static_cast<float>(whole);
      codes[j] = static_cast<int8_t>(whole + static_cast<int32_t>(rest >= 0.5f) -
                                     static_cast<int32_t>(rest <= -0.5f));
    }
  }
}

RETORT_EACH_TARGET
void truncate(const float* __restrict x, const float* divisor, int8_t* __restrict codes, int64_t groups,
              int64_t group, int32_t lowest, float levels) {
  const float shift = 0.5f - static_cast<float>(lowest);
  for (int64_t g = 0; g < groups; ++g, x += group, codes += group) {
    const float inverse = inverse_of(divisor[g]);
    for (int64_t j = 0; j < group; ++j) {
      const float v = clamped(x[j] * inverse + shift, 0.0f, levels);
      codes[j] = static_cast<int8_t>(static_cast<int32_t>(v) + lowest);
    }
  }
}

RETORT_EACH_TARGET
void odd(const float* __restrict x, const float* divisor, int8_t* __restrict codes, int64_t groups,
         int64_t group, float lowest, float highest) {
  for (int64_t g = 0; g < groups; ++g, x += group, codes += group) {
    const float inverse = inverse_of(divisor[g]);
    for (int64_t j = 0; j < group; ++j) {
      const float v = clamped(x[j] * inverse, lowest, highest);
      codes[j] = static_cast<int8_t>(2 * nearest(0.5f * v - 0.5f) + 1);
    }
  }
}

RETORT_EACH_TARGET
void sign(const float* __restrict x, int8_t* __restrict codes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<int8_t>(x[i] >= 0.0f ? 1 : -1);
}

// The midpoints of neighbours, twice: .5 1.5 2.5 3.5 5 7 10. A code is the sum of the steps that were passed.
RETORT_EACH_TARGET
void float4(const float* __restrict x, const float* divisor, int8_t* __restrict codes, int64_t groups,
            int64_t group) {
  for (int64_t g = 0; g < groups; ++g, x += group, codes += group) {
    const float d = divisor[g];
    const float scale = d != 0.0f ? d : 1.0f;
    for (int64_t j = 0; j < group; ++j) {
      const float v = x[j] / scale, size = v < 0.0f ? -v : v;
      const int32_t code = static_cast<int32_t>(size > 0.5f) + static_cast<int32_t>(size > 1.5f) +
                           static_cast<int32_t>(size > 2.5f) + static_cast<int32_t>(size > 3.5f) +
                           2 * static_cast<int32_t>(size > 5.0f) + 2 * static_cast<int32_t>(size > 7.0f) +
                           4 * static_cast<int32_t>(size > 10.0f);
      codes[j] = static_cast<int8_t>(v < 0.0f ? -code : code);
    }
  }
}

}  // namespace

void round_groups(const float* x, const float* divisor, const float* offset, int8_t* codes, int64_t groups,
                  int64_t group, const Rounding& rounding) {
  const auto low = static_cast<float>(rounding.lowest), high = static_cast<float>(rounding.highest);
  switch (rounding.rule) {
    case RoundRule::kNearestEven:
      return nearest_even(x, divisor, offset, codes, groups, group, low, high);
    case RoundRule::kNearestAway:
      return nearest_away(x, divisor, codes, groups, group, low, high);
    case RoundRule::kTruncate:
      return truncate(x, divisor, codes, groups, group, rounding.lowest, high - low);
    case RoundRule::kOdd:
      return odd(x, divisor, codes, groups, group, low, high);
    case RoundRule::kSign:
      return sign(x, codes, groups * group);
    case RoundRule::kFloat4:
      return float4(x, divisor, codes, groups, group);
    case RoundRule::kFloat8:
      break;
  }
  fail<InternalError>("[round_groups] this rule has no i8 codes");
}

}  // namespace retort::formats
