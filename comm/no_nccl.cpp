#include "comm/comm.h"
#include "core/error.h"

namespace retort::comm {

std::unique_ptr<Comm> make_nccl_comm(Comm&) {
  fail<CommError>("[nccl] this build has no NCCL: configure with RETORT_CUDA=ON and RETORT_NCCL=ON");
}

bool nccl_available() { return false; }

}  // namespace retort::comm
