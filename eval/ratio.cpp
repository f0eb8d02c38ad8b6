#include "eval/ratio.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace retort::eval {

Estimate ratio(std::span<const double> sums, std::span<const double> counts) {
  RETORT_ASSERT(sums.size() == counts.size());
  double sum = 0, count = 0, squares = 0;
  for (size_t w = 0; w < sums.size(); ++w) sum += sums[w], count += counts[w];
  const double value = sum / count;
  if (sums.size() < 2) return {value, std::numeric_limits<double>::quiet_NaN()};
  for (size_t w = 0; w < sums.size(); ++w) squares += std::pow(sums[w] - value * counts[w], 2);
  const auto windows = static_cast<double>(sums.size());
  return {value, std::sqrt(windows / (windows - 1) * squares) / count};
}

}  // namespace retort::eval
