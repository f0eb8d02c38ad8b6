// The exit code of a machine that has computed wrongly (docs/reliability.md), beside those of core/error.h.
#pragma once

#include "core/error.h"

namespace retort::comm {

inline constexpr ExitCode kFaultyMachine{78};

}  // namespace retort::comm
