// Ranks make the same weights, each its own copy, unless memory or a processor has failed. Collective; every rank throws
// the same.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "comm/faulty_machine.h"
#include "formats/safetensors.h"
#include "train/step.h"

namespace retort::train {

using comm::kFaultyMachine;

// What every rank has the same of, by name: masters, the objective's too, or working values where masters are divided and
// these are not.
formats::NamedTensors replicated_weights(const StepParts& parts);
// The same of the optimizer's state: all but what is divided.
formats::NamedTensors shared_state(const StepParts& parts);

// Of names and values, which are on the host.
uint64_t digest_of(const formats::NamedTensors& tensors);

// SharedError (exit code 78) that names the ranks whose weights are not those of the majority, or all where there is
// none.
void compare_replicas(comm::Comm& comm, int64_t step, const formats::NamedTensors& weights);

}  // namespace retort::train
