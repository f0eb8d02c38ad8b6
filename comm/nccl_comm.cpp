// NCCL over CUDA tensors, on one communication stream of its own: an operation starts when the work that is
// now on the default stream is done, and Pending::wait() makes the default stream wait for it, not the host.
// A part of libretort_cuda.so. Compiled and linked on a machine without a GPU; not yet run on several.
#include <cuda_runtime.h>
#include <nccl.h>

#include <cstring>

#include "comm/comm.h"
#include "comm/queued_comm.h"
#include "comm/tree_sum.h"
#include "core/error.h"

namespace retort::comm {
namespace {

void must(cudaError_t code, const char* call) {
  check<CommError>(code == cudaSuccess, "[nccl] {} failed: {}", call, cudaGetErrorString(code));
}
void must(ncclResult_t code, const char* call) {
  check<CommError>(code == ncclSuccess, "[nccl] {} failed: {}", call, ncclGetErrorString(code));
}

// A point in a stream.
class Event {
 public:
  explicit Event(cudaStream_t stream) {
    must(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
    must(cudaEventRecord(event_, stream), "cudaEventRecord");
  }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void before(cudaStream_t stream) const {
    must(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

ncclDataType_t nccl_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::ScalarType::Double:
      return ncclFloat64;
    case at::ScalarType::Float:
      return ncclFloat32;
    case at::ScalarType::BFloat16:
      return ncclBfloat16;
    case at::ScalarType::Half:
      return ncclFloat16;
    case at::ScalarType::Long:
      return ncclInt64;
    case at::ScalarType::Int:
      return ncclInt32;
    default:
      fail<ShapeError>("[all_reduce] NCCL has no type for {}", c10::toString(dtype));
  }
}

ncclRedOp_t nccl_reduce(Reduce reduce) {
  return reduce == Reduce::kSum ? ncclSum : reduce == Reduce::kMax ? ncclMax : ncclMin;
}

class NcclComm final : public Comm {
 public:
  explicit NcclComm(Comm& bootstrap) : bootstrap_(bootstrap) {
    int version = 0;
    must(ncclGetVersion(&version), "ncclGetVersion");
    check<CommError>(version == NCCL_VERSION_CODE, "[nccl] compiled against version {}, but {} was loaded",
                     NCCL_VERSION_CODE, version);
    must(cudaGetDevice(&device_), "cudaGetDevice");
    ncclUniqueId id = {};
    if (rank() == 0) must(ncclGetUniqueId(&id), "ncclGetUniqueId");
    const std::string text = bootstrap_.broadcast_text(std::string(id.internal, sizeof(id.internal)));
    std::memcpy(id.internal, text.data(), sizeof(id.internal));
    int least = 0, greatest = 0;
    must(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    must(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreate");
    must(ncclCommInitRank(&comm_, size(), id, rank()), "ncclCommInitRank");
  }
  ~NcclComm() override {
    if (std::uncaught_exceptions() > 0) {
      ncclCommAbort(comm_);
    } else {
      cudaStreamSynchronize(stream_);
      ncclCommDestroy(comm_);
    }
    cudaStreamDestroy(stream_);
  }

  int rank() const override { return bootstrap_.rank(); }
  int size() const override { return bootstrap_.size(); }
  std::string name() const override { return "nccl"; }

  Pending all_reduce(at::Tensor tensor, Reduce reduce) override {
    if (tensor.is_cpu()) return bootstrap_.all_reduce(tensor, reduce);
    void* data = tensor.mutable_data_ptr();
    return start({tensor}, [&] {
      return ncclAllReduce(data, data, tensor.numel(), nccl_type(tensor.scalar_type()), nccl_reduce(reduce),
                           comm_, stream_);
    });
  }
  Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override {
    if (nodes_PN.is_cpu()) return bootstrap_.sum_tree(nodes_PN, leaves);
    const auto used = std::ssize(subtrees(rank() * leaves, (rank() + 1) * leaves));
    for (int64_t i = 1; i < used; ++i) nodes_PN[0].add_(nodes_PN[i]);
    return all_reduce(nodes_PN[0], Reduce::kSum);
  }
  Pending broadcast(at::Tensor tensor, int root) override {
    if (tensor.is_cpu()) return bootstrap_.broadcast(tensor, root);
    void* data = tensor.mutable_data_ptr();
    return start({tensor},
                 [&] { return ncclBroadcast(data, data, tensor.nbytes(), ncclUint8, root, comm_, stream_); });
  }
  Pending all_gather(at::Tensor out, at::Tensor in) override {
    if (in.is_cpu()) return bootstrap_.all_gather(out, in);
    check(out.nbytes() == in.nbytes() * size(), "[all_gather] out must have {} bytes, got {}",
          in.nbytes() * size(), out.nbytes());
    return start({in, out}, [&] {
      return ncclAllGather(in.const_data_ptr(), out.mutable_data_ptr(), in.nbytes(), ncclUint8, comm_,
                           stream_);
    });
  }
  Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) override {
    if (in_N.is_cpu()) return bootstrap_.all_to_all(std::move(out), in_N, std::move(bounds));
    check_runs(out, in_N, bounds, rank(), size());
    std::vector<at::Tensor> tensors = out;
    tensors.push_back(in_N);
    const auto* in = static_cast<const std::byte*>(in_N.const_data_ptr());
    const int64_t item = in_N.element_size();
    return start(tensors, [&] {
      ncclResult_t code = ncclGroupStart();
      for (int peer = 0; peer < size() && code == ncclSuccess; ++peer) {
        const int64_t first = bounds[static_cast<size_t>(peer)], end = bounds[static_cast<size_t>(peer) + 1];
        const at::Tensor& theirs = out[static_cast<size_t>(peer)];
        code = ncclSend(in + first * item, static_cast<size_t>((end - first) * item), ncclUint8, peer, comm_,
                        stream_);
        if (code == ncclSuccess)
          code = ncclRecv(theirs.mutable_data_ptr(), theirs.nbytes(), ncclUint8, peer, comm_, stream_);
      }
      const ncclResult_t end = ncclGroupEnd();
      return code == ncclSuccess ? end : code;
    });
  }
  Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    check_messages(send, receive, rank(), size());
    std::vector<at::Tensor> tensors;
    for (const auto* messages : {&send, &receive})
      for (const at::Tensor& one : *messages)
        if (one.defined()) tensors.push_back(one);
    // Ranks without messages call as the others do: whether tensors are on devices is the same on all.
    if (!tensors.empty() && tensors.front().is_cpu())
      return bootstrap_.exchange(std::move(send), std::move(receive));
    return start(tensors, [&] {
      ncclResult_t code = ncclGroupStart();
      for (size_t peer = 0; peer < send.size() && code == ncclSuccess; ++peer) {
        const at::Tensor &to = send[peer], &from = receive[peer];
        const int number = static_cast<int>(peer);
        if (to.defined())
          code = ncclSend(to.const_data_ptr(), to.nbytes(), ncclUint8, number, comm_, stream_);
        if (code == ncclSuccess && from.defined())
          code = ncclRecv(from.mutable_data_ptr(), from.nbytes(), ncclUint8, number, comm_, stream_);
      }
      const ncclResult_t end = ncclGroupEnd();
      return code == ncclSuccess ? end : code;
    });
  }
  Flight* flight() override { return bootstrap_.flight(); }
  std::shared_ptr<Comm> subgroup(const std::vector<int>&) override {
    fail<ConfigError>("[nccl] has no groups of some of the ranks: leave parallel.replicas at 1");
  }
  void barrier() override { bootstrap_.barrier(); }
  [[noreturn]] void abort(const std::string& why, int exit_code) override {
    bootstrap_.abort(why, exit_code);
    std::terminate();  // not reached; GCC does not see that through the virtual call
  }

 private:
  template <class Launch>
  Pending start(const std::vector<at::Tensor>& tensors, Launch&& launch) {
    for (const at::Tensor& tensor : tensors)
      check(tensor.is_cuda() && tensor.is_non_overlapping_and_dense(),
            "[nccl] needs dense CUDA tensors, got {}", tensor.device().str());
    ncclResult_t earlier = ncclSuccess;
    must(ncclCommGetAsyncError(comm_, &earlier), "ncclCommGetAsyncError");
    must(earlier, "an earlier collective");
    must(cudaSetDevice(device_), "cudaSetDevice");  // hooks run on a thread of their own
    Event(cudaStreamLegacy).before(stream_);
    must(launch(), "the launch");
    // The tensors stay referenced until the default stream waits for the operation.
    return Pending(std::async(std::launch::deferred, [tensors, done = std::make_shared<Event>(stream_)] {
                     done->before(cudaStreamLegacy);
                   }).share());
  }

  Comm& bootstrap_;
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

}  // namespace retort::comm

extern "C" retort::comm::Comm* retort_cuda_nccl(retort::comm::Comm& bootstrap) {
  return new retort::comm::NcclComm(bootstrap);  // comm/nccl.cpp owns it
}
