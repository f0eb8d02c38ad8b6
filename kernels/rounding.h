// The rounding rules of block_codes.h on raw memory: `groups` groups of `group` values each. divisor, scale
// and offset have one entry a group; offset may be null. Single-threaded.
#pragma once

#include <cstdint>

#include "kernels/block_codes.h"

namespace retort::kernels {

// Of every rule but kFloat8, whose codes are no integers.
void round_groups(const float* x, const float* divisor, const float* offset, int8_t* codes, int64_t groups,
                  int64_t group, const Rounding& rounding);
// What those codes stand for, code * scale + offset, in one pass and without the codes. `values` may be x.
void round_to_values(const float* x, const float* divisor, const float* scale, const float* offset,
                     float* values, int64_t groups, int64_t group, const Rounding& rounding);

// Sends NaN to `high`: a conversion to an integer of anything outside its range is undefined.
inline float clamped(float x, float low, float high) {
  const float below = x < high ? x : high;
  return below > low ? below : low;
}

}  // namespace retort::kernels
