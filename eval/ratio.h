// A figure that is a ratio of two sums over windows of a text, such as nats over tokens. Its standard error is that of its
// linear part (Cochran 1977, Sampling Techniques, the estimate of a ratio): sqrt(W / (W - 1) sum (x - R n)^2) / sum of n.
#pragma once

#include <span>

namespace retort::eval {

struct Estimate {
  double value = 0;
  double standard_error = 0;  // NaN for fewer than two windows
};

// Of equally many; summed in their order.
Estimate ratio(std::span<const double> sums, std::span<const double> counts);

}  // namespace retort::eval
