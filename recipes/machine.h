// What this machine has to compute with, what this program can use of it, and why not: `retort devices`. A line a
// part: processor, driver, each GPU, kernels, NCCL, MPI.
#pragma once

#include <string>

#include "core/cuda_driver.h"

namespace retort::recipes {

std::string describe_machine(const CudaDriver& driver = probe_cuda_driver());

}  // namespace retort::recipes
