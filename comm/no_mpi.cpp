#include "comm/comm.h"
#include "core/error.h"

namespace retort::comm {

std::unique_ptr<Comm> make_mpi_comm(const CommOptions&) {
  fail<CommError>(
      "[mpi] this build has no MPI: install it (Debian: libopenmpi-dev) and configure with RETORT_MPI=ON");
}

bool mpi_available() { return false; }

}  // namespace retort::comm
