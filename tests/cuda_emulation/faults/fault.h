// A planted fault: a kernel that is wrong in one way, and what runs it. check() ends a run whose result is not
// the right one; what the emulation and the sanitizers report, they report themselves.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/device.cuh"

namespace retort::emulation::faults {

using namespace kernels::cuda::emulated;
using kernels::cuda::Element;

class WrongResult : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void check(float got, float want) {
  if (!(got == want))
    throw WrongResult("wrong result: " + std::to_string(got) + " for " + std::to_string(want));
}

}  // namespace retort::emulation::faults
