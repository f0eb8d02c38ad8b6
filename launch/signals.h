// Stopping a run from outside. The first SIGINT, SIGTERM or SIGUSR1 (which mpirun forwards without a kill)
// asks the run to save and stop; the second has its default action. The one piece of global state here: a
// handler has no other way to speak.
#pragma once

#include <atomic>

namespace retort::launch {

void install_stop_signals();
const std::atomic<bool>& stop_requested();

}  // namespace retort::launch
