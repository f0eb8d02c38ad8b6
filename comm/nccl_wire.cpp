// NCCL as a wire between devices: groups of sends and receives. Its calls do not block (ncclConfig_t::blocking = 0); what takes
// time goes on in the background, where comm/launch_watch.h asks for it.
// A part of libretort_cuda.so. Compiled and linked on a machine without a GPU; not yet run on several.
#include <cuda_runtime.h>
#include <nccl.h>

#include <cstring>
#include <utility>

#include "comm/device_comm.h"
#include "core/error.h"

namespace retort::comm {
namespace {

// A call that does not block may go on in the background.
bool sound(ncclResult_t code) { return code == ncclSuccess || code == ncclInProgress; }

void must(ncclResult_t code, const char* call) {
  check<CommError>(sound(code), "[nccl] {} failed: {}", call, ncclGetErrorString(code));
}

class NcclWire final : public DeviceWire {
 public:
  NcclWire(const std::string& id, int rank, int size) : rank_(rank), size_(size) {
    check<CommError>(id.size() == sizeof(id_.internal), "[nccl] an id has {} bytes, got {}",
                     sizeof(id_.internal), id.size());
    std::memcpy(id_.internal, id.data(), id.size());
  }
  ~NcclWire() override {
    if (comm_ != nullptr) ncclCommDestroy(comm_);
  }
  NcclWire(const NcclWire&) = delete;
  NcclWire& operator=(const NcclWire&) = delete;

  std::string name() const override { return "nccl"; }
  void join() override {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    must(ncclCommInitRankConfig(&comm_, size_, id_, rank_, &config), "ncclCommInitRankConfig");
  }
  void leave() override { must(ncclCommFinalize(comm_), "ncclCommFinalize"); }

  void trade(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive,
             const c10::Stream& stream) override {
    const auto on = static_cast<cudaStream_t>(stream.native_handle());
    must(ncclGroupStart(), "ncclGroupStart");
    ncclResult_t code = ncclSuccess;
    const auto enqueue = [&](const std::vector<at::Tensor>& messages, auto&& call) {
      for (size_t peer = 0; peer < messages.size(); ++peer)
        if (messages[peer].defined() && sound(code)) code = call(messages[peer], static_cast<int>(peer));
    };
    enqueue(send, [&](const at::Tensor& x, int peer) {
      return ncclSend(x.const_data_ptr(), x.nbytes(), ncclUint8, peer, comm_, on);
    });
    enqueue(receive, [&](const at::Tensor& x, int peer) {
      return ncclRecv(x.mutable_data_ptr(), x.nbytes(), ncclUint8, peer, comm_, on);
    });
    const ncclResult_t end = ncclGroupEnd();
    must(code, "a send or receive");
    must(end, "ncclGroupEnd");
  }

  LaunchWatch::State state() override {
    ncclResult_t now = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &now);
    if (sound(asked) && sound(now)) return {now == ncclInProgress, ""};
    return {false, fmt::format("[nccl] {}: {}", ncclGetErrorString(sound(asked) ? now : asked),
                               ncclGetLastError(comm_))};
  }
  void abort() override {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }

 private:
  const int rank_, size_;
  ncclUniqueId id_ = {};
  ncclComm_t comm_ = nullptr;
};

}  // namespace
}  // namespace retort::comm

// For comm/nccl.cpp.
extern "C" void retort_cuda_nccl_id(std::string& id) {
  int version = 0;
  ncclGetVersion(&version);
  retort::check<retort::CommError>(version == NCCL_VERSION_CODE,
                                   "[nccl] compiled against version {}, but {} was loaded", NCCL_VERSION_CODE,
                                   version);
  ncclUniqueId unique = {};
  retort::comm::must(ncclGetUniqueId(&unique), "ncclGetUniqueId");
  id.assign(unique.internal, sizeof(unique.internal));
}
extern "C" retort::comm::DeviceWire* retort_cuda_nccl_join(const std::string& id, int rank, int size) {
  return new retort::comm::NcclWire(id, rank, size);
}
