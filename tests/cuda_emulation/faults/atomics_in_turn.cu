// An atomic sum of floats has the order in which blocks come: the bits change from run to run.
#include "tests/cuda_emulation/faults/fault.h"
#include "tests/cuda_emulation/schedule.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y) { atomicAdd(y, x[blockIdx.x]); }

void atomics_in_turn() {
  const std::vector<float> x = {1e8f, 1.0f, -1e8f, 1.0f};
  std::vector<float> sums;
  for (const Schedule& schedule : {Schedule{}, Schedule{Order::kReverse, 0}}) {
    const Scheduled in_turn(schedule);
    sums.push_back(0.0f);
    launch(kernel, {4u, 1u}, nullptr, x.data(), &sums.back());
  }
  check(sums[0], sums[1]);
}

}  // namespace retort::emulation::faults
