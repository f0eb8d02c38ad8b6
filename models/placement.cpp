#include "models/placement.h"

#include <c10/util/accumulate.h>

#include <algorithm>

namespace retort::models {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 15;

}  // namespace

RowBlocks cut_into_blocks(at::IntArrayRef shape) {
  const int64_t row = std::max<int64_t>(1, c10::multiply_integers(shape.slice(1)));
  return {0, shape.front(), (kBlockElements + row - 1) / row};
}

Placement Placement::whole(at::IntArrayRef shape, at::Device device) {
  return {device, cut_into_blocks(shape), {0, 0, shape.front()}};
}

bool Placement::owns_all(at::IntArrayRef shape) const {
  return owned.begin == 0 && owned.end == shape.front();
}

}  // namespace retort::models
