// A group for tensors of any device on a back end that works on host memory, which every one but NCCL is. What is sent is
// copied to the host when a collective is called, and what has come is copied to the device when its result is waited
// for. Tensors on the CPU go straight there.
#pragma once

#include "comm/comm.h"

namespace retort::comm {

std::unique_ptr<Comm> make_staged_comm(Comm& host);  // which outlives it

}  // namespace retort::comm
