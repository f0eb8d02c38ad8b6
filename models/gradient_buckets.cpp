#include "models/gradient_buckets.h"

#include <algorithm>
#include <map>

namespace retort::models {
namespace {

constexpr int64_t kLeastMessage = 64 << 10;  // bytes: shorter ones cost as much

int64_t item(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

}  // namespace

std::vector<GradientBucket> gradient_buckets(const std::vector<GradientSize>& gradients,
                                             int64_t bucket_bytes) {
  std::vector<GradientBucket> out;
  std::map<at::ScalarType, size_t> newest;
  for (size_t i = gradients.size(); i-- > 0;) {
    const auto [elements, dtype] = gradients[i];
    if (elements == 0) continue;
    const auto open = newest.find(dtype);
    if (open == newest.end() || out[open->second].elements * item(dtype) >= bucket_bytes) {
      newest[dtype] = out.size();
      out.push_back({{}, dtype, 0});
    }
    GradientBucket& bucket = out[newest.at(dtype)];
    bucket.members.push_back(i);
    bucket.elements += elements;
  }
  std::ranges::sort(out, std::ranges::greater(), [](const GradientBucket& b) { return b.members.back(); });
  return out;
}

int64_t piece_elements(int64_t bucket_bytes, at::ScalarType dtype, int64_t ranks) {
  const int64_t bytes = std::max(bucket_bytes / ranks, std::min(bucket_bytes, kLeastMessage));
  return std::max<int64_t>(1, bytes / item(dtype));
}

int64_t row_at(const kernels::RowBlocks& blocks, int64_t row, int64_t wanted) {
  if (wanted <= 0) return 0;
  if (wanted >= blocks.end * row) return blocks.end;
  return wanted / row / blocks.step * blocks.step;
}

}  // namespace retort::models
