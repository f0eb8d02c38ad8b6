// Which source of a weighted mixture each sample of an endless order comes from: a pure function of the
// sample's number, so there is no state to save, and any rank count and stop point sees the same mixture. The
// sources are interleaved as evenly as whole samples allow: with K sources, each one's share of the first n
// samples, for every n, is within K / 2 samples of n * weight / (sum of weights).
//   source 0 takes sample n when round((n + 1) s) > round(n s), s its share; the samples that it leaves,
//   renumbered, are divided among the other sources in the same way
// Shares are multiples of 2^-32, at least one. Immutable; any thread. ConfigError for weights that are not
// finite and > 0.
#pragma once

#include <cstdint>
#include <vector>

namespace retort::data {

class Mixture {
 public:
  struct Place {
    int64_t source, index;  // the index-th sample of that source, from 0
  };
  explicit Mixture(const std::vector<double>& weights);
  Place operator()(int64_t sample) const;
  std::vector<int64_t> counts(int64_t samples) const;  // of each source among the first `samples`

 private:
  std::vector<uint64_t> shares_;  // in 2^-32, of what the sources before leave
};

}  // namespace retort::data
