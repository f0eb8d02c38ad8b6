// NCCL lies in the library for NVIDIA's GPUs (nccl_wire.cpp, core/cuda_plugin.h).
#include "comm/comm.h"
#include "comm/device_comm.h"
#include "core/cuda_plugin.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using MakeId = void(std::string& id);
using Join = DeviceWire*(const std::string& id, int rank, int size);
MakeId* make_id() { return CudaPlugin::get().function<MakeId>("retort_cuda_nccl_id"); }
Join* join() { return CudaPlugin::get().function<Join>("retort_cuda_nccl_join"); }

}  // namespace

bool nccl_available() { return CudaPlugin::get().missing().empty() && join() != nullptr; }

std::unique_ptr<Comm> make_nccl_comm(Comm& bootstrap, LeafSum sum_of) {
  const std::string& missing = CudaPlugin::get().missing();
  check<CommError>(missing.empty(), "[nccl] {}", missing);
  check<CommError>(join() != nullptr, "[nccl] {} was built without NCCL", CudaPlugin::path());
  std::string id;
  if (bootstrap.rank() == 0) make_id()(id);
  id = bootstrap.broadcast_text(id);
  std::unique_ptr<DeviceWire> wire(join()(id, bootstrap.rank(), bootstrap.size()));
  return make_device_comm(bootstrap, std::move(wire), std::move(sum_of));
}

}  // namespace retort::comm
