// What all ranks must have in common before they work together: their recipe, their program, what their inputs
// hold. A rank that differs would train on with the others and ruin the model without a word. Collective.
#pragma once

#include <map>
#include <string>

#include "comm/comm.h"

namespace retort::comm {

using Facts = std::map<std::string, std::string>;  // by name

// Compares every rank's facts with rank 0's. Where any differ, every rank throws a SharedError of exit code 2,
// which names the lowest such rank and what differs, with both values.
void must_agree(Comm& comm, const Facts& mine);

}  // namespace retort::comm
