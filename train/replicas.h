// Ranks make the same weights, each its own copy, unless memory or a processor has failed. Collective; every rank throws
// the same.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "core/error.h"
#include "formats/safetensors.h"

namespace retort::train {

inline constexpr ExitCode kFaultyMachine{78};

// Of names and values, which are on the host.
uint64_t digest_of(const formats::NamedTensors& tensors);

// SharedError (exit code 78) that names the ranks whose weights are not those of the majority, or all where there is
// none.
void compare_replicas(comm::Comm& comm, int64_t step, const formats::NamedTensors& weights);

}  // namespace retort::train
