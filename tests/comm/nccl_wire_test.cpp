// comm/nccl_wire.cpp over a stand-in for NCCL that writes down how it is called: without a GPU the library itself does nothing.
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <nccl.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/device_comm.h"
#include "core/error.h"

extern "C" {
void retort_cuda_nccl_id(std::string& id);
retort::comm::DeviceWire* retort_cuda_nccl_join(const std::string& id, int rank, int size);
}

namespace {

struct Library {
  std::vector<std::string> calls = {};
  int version = NCCL_VERSION_CODE;
  ncclResult_t sent = ncclSuccess, now = ncclInProgress;
};
Library& library() {
  static Library one;
  return one;
}

ncclResult_t called(const std::string& call, ncclResult_t result = ncclInProgress) {
  library().calls.push_back(call);
  return result;
}
std::string message(const char* what, size_t count, ncclDataType_t type, int peer, cudaStream_t stream) {
  return fmt::format("{} {} {}, rank {}, stream {}", what, count, type == ncclUint8 ? "bytes" : "elements",
                     peer, reinterpret_cast<intptr_t>(stream));
}

}  // namespace

extern "C" {
ncclResult_t ncclGetVersion(int* version) { return *version = library().version, ncclSuccess; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) { return id->internal[5] = 'x', ncclSuccess; }
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  *comm = reinterpret_cast<ncclComm_t>(&library());
  return called(
      fmt::format("join {} as {} of {}, blocking {}", id.internal[5], rank, size, config->blocking));
}
ncclResult_t ncclCommFinalize(ncclComm_t) { return called("finalize"); }
ncclResult_t ncclCommDestroy(ncclComm_t) { return called("destroy"); }
ncclResult_t ncclCommAbort(ncclComm_t) { return called("abort"); }
ncclResult_t ncclGroupStart() { return called("start"); }
ncclResult_t ncclGroupEnd() { return called("end"); }
ncclResult_t ncclSend(const void*, size_t count, ncclDataType_t type, int peer, ncclComm_t,
                      cudaStream_t stream) {
  return called(message("send", count, type, peer, stream), library().sent);
}
ncclResult_t ncclRecv(void*, size_t count, ncclDataType_t type, int peer, ncclComm_t, cudaStream_t stream) {
  return called(message("receive", count, type, peer, stream));
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* now) {
  return *now = library().now, ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) { return result == ncclSystemError ? "system" : "other"; }
const char* ncclGetLastError(ncclComm_t) { return "a cable is out"; }
}

namespace retort::comm {
namespace {

using ::testing::ElementsAre, ::testing::HasSubstr;

// Streams whose handles are their numbers.
struct Streams final : c10::impl::NoOpDeviceGuardImpl<at::kPrivateUse1> {
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return reinterpret_cast<void*>(static_cast<intptr_t>(stream.id()));
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Streams);

std::unique_ptr<DeviceWire> joined() {
  library() = {};
  std::string id;
  retort_cuda_nccl_id(id);
  std::unique_ptr<DeviceWire> wire(retort_cuda_nccl_join(id, 1, 3));
  wire->join();
  return wire;
}

void trade(DeviceWire& wire) {
  const at::Tensor three = at::zeros({3}), five = at::zeros({5}, at::kBFloat16);
  library().calls.clear();
  wire.trade({three, {}, five}, {{}, {}, three},
             c10::Stream(c10::Stream::UNSAFE, at::Device(at::kPrivateUse1, 0), 7));
}

}  // namespace

TEST(NcclWire, JoinsWithoutBlocking) {
  const auto wire = joined();
  EXPECT_THAT(library().calls, ElementsAre("join x as 1 of 3, blocking 0"));
  EXPECT_TRUE(wire->state().busy);
  library().now = ncclSuccess;
  EXPECT_FALSE(wire->state().busy);
  EXPECT_EQ(wire->state().error, "");
  library().now = ncclSystemError;
  EXPECT_EQ(wire->state().error, "[nccl] system: a cable is out");
}

TEST(NcclWire, TradesAllAtOnceInTheStreamThatItIsGiven) {
  const auto wire = joined();
  trade(*wire);
  EXPECT_THAT(library().calls,
              ElementsAre("start", "send 12 bytes, rank 0, stream 7", "send 10 bytes, rank 2, stream 7",
                          "receive 12 bytes, rank 2, stream 7", "end"));
}

// An open group would take whatever is called next.
TEST(NcclWire, EndsTheGroupOfASendThatFails) {
  const auto wire = joined();
  library().sent = ncclSystemError;
  try {
    trade(*wire);
    ADD_FAILURE() << "nothing is thrown";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("[nccl] a send or receive failed: system"));
  }
  EXPECT_THAT(library().calls, ElementsAre("start", "send 12 bytes, rank 0, stream 7", "end"));
}

TEST(NcclWire, LeavesOrIsAborted) {
  auto wire = joined();
  library().calls.clear();
  wire->leave();
  wire = nullptr;
  EXPECT_THAT(library().calls, ElementsAre("finalize", "destroy"));
  wire = joined();
  library().calls.clear();
  wire->abort();
  wire = nullptr;
  EXPECT_THAT(library().calls, ElementsAre("abort"));
}

TEST(NcclWire, RefusesALibraryOfAnotherVersion) {
  library() = {.version = 1};
  std::string id;
  EXPECT_THROW(retort_cuda_nccl_id(id), CommError);
  EXPECT_EQ(id, "");
}

}  // namespace retort::comm
