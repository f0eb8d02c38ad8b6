// The rounding rules of block_codes.h on raw memory, for the codecs: `groups` groups of `group` values each.
// divisor and offset have one entry a group; offset may be null. Single-threaded.
#pragma once

#include <cstdint>

#include "formats/block_codes.h"

namespace retort::formats {

void round_groups(const float* x, const float* divisor, const float* offset, int8_t* codes, int64_t groups,
                  int64_t group, const Rounding& rounding);

// Sends NaN to `high`: a conversion to an integer of anything outside its range is undefined.
inline float clamped(float x, float low, float high) {
  const float below = x < high ? x : high;
  return below > low ? below : low;
}

}  // namespace retort::formats
