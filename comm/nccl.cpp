// NCCL lies in the library for NVIDIA's GPUs (nccl_comm.cpp, core/cuda_plugin.h).
#include "comm/comm.h"
#include "comm/deadline.h"
#include "core/cuda_plugin.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using MakeNccl = Comm*(Comm& bootstrap);
MakeNccl* make_nccl() { return CudaPlugin::get().function<MakeNccl>("retort_cuda_nccl"); }

}  // namespace

bool nccl_available() { return CudaPlugin::get().missing().empty() && make_nccl() != nullptr; }

std::unique_ptr<Comm> make_nccl_comm(Comm& bootstrap) {
  const std::string& missing = CudaPlugin::get().missing();
  check<CommError>(missing.empty(), "[nccl] {}", missing);
  check<CommError>(make_nccl() != nullptr, "[nccl] {} was built without NCCL", CudaPlugin::path());
  const Deadline deadline(CommOptions().timeout_seconds, "joining the NCCL group");
  return std::unique_ptr<Comm>(make_nccl()(bootstrap));
}

}  // namespace retort::comm
