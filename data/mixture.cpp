#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace retort::data {
namespace {

constexpr int kBits = 32;

// round(samples * share): how many of the first `samples` belong to the source.
int64_t taken(int64_t samples, uint64_t share) {
  const auto product = static_cast<unsigned __int128>(samples) * share;
  return static_cast<int64_t>((product + (uint64_t{1} << (kBits - 1))) >> kBits);
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights) {
  check<ConfigError>(!weights.empty(), "[mixture] must have at least one source");
  for (const double weight : weights)
    check<ConfigError>(std::isfinite(weight) && weight > 0.0, "[mixture] a weight must be > 0, got {}",
                       weight);
  double left = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (const double weight : weights) {
    const double share = std::ldexp(std::clamp(weight / left, 0.0, 1.0), kBits);
    shares_.push_back(static_cast<uint64_t>(std::max(1.0, std::round(share))));
    left -= weight;
  }
  shares_.back() = uint64_t{1} << kBits;  // all that is left
}

Mixture::Place Mixture::operator()(int64_t sample) const {
  check(sample >= 0, "[mixture] sample must be >= 0, got {}", sample);
  for (size_t source = 0;; ++source) {
    const int64_t before = taken(sample, shares_[source]);
    if (taken(sample + 1, shares_[source]) > before) return {static_cast<int64_t>(source), before};
    sample -= before;
  }
}

std::vector<int64_t> Mixture::counts(int64_t samples) const {
  std::vector<int64_t> out;
  for (const uint64_t share : shares_) {
    out.push_back(taken(samples, share));
    samples -= out.back();
  }
  return out;
}

}  // namespace retort::data
