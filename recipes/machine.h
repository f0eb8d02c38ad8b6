// What this machine has to compute with, what this program can use of it, and why not: `retort devices`. A line a
// part: processor, driver, each GPU, kernels, NCCL, MPI.
#pragma once

#include <string>

namespace retort::recipes {

std::string describe_machine();

}  // namespace retort::recipes
