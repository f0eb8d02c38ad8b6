#include "kernels/cuda/plugin.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

using retort::kernels::cuda::Stream;

namespace {

// A replay would read the host's memory again, long after it is gone, or call the host.
void refuse_the_host(cudaGraph_t graph) {
  size_t count = 0;
  C10_CUDA_CHECK(cudaGraphGetNodes(graph, nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  C10_CUDA_CHECK(cudaGraphGetNodes(graph, nodes.data(), &count));
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    C10_CUDA_CHECK(cudaGraphNodeGetType(node, &type));
    TORCH_CHECK(type != cudaGraphNodeTypeHost, "the host is called");
    if (type != cudaGraphNodeTypeMemcpy) continue;
    cudaMemcpy3DParms copy{};
    C10_CUDA_CHECK(cudaGraphMemcpyNodeGetParams(node, &copy));
    for (const void* memory : {copy.srcPtr.ptr, copy.dstPtr.ptr}) {
      if (memory == nullptr) continue;  // an array's
      cudaPointerAttributes of{};
      C10_CUDA_CHECK(cudaPointerGetAttributes(&of, memory));
      TORCH_CHECK(of.type == cudaMemoryTypeDevice, "something is copied from the host's memory or to it");
    }
  }
}

// While one lives, the current stream is captured, and what is allocated in it is the pool's. The runtime's own calls, not
// at::cuda::CUDAGraph: that is in libtorch_cuda, which is not there when this library is opened, and leaves the allocator
// in capture when capture fails. There are no random numbers in a graph, so their generators are none of it.
class Recording {
 public:
  Recording(const c10::cuda::CUDAStream& stream, c10::MempoolId_t pool) : stream_(stream), pool_(pool) {
    const cudaStream_t captured = stream.stream();
    c10::cuda::CUDACachingAllocator::beginAllocateToPool(
        stream.device_index(), pool, [captured](cudaStream_t of) { return of == captured; });
    // Other threads go on with what they do: a save, batches.
    begun_ = cudaStreamBeginCapture(captured, cudaStreamCaptureModeThreadLocal);
  }
  cudaGraph_t finish() {
    C10_CUDA_CHECK(begun_);
    cudaGraph_t graph = nullptr;
    begun_ = cudaErrorUnknown;  // no second end
    C10_CUDA_CHECK(cudaStreamEndCapture(stream_.stream(), &graph));
    return graph;
  }
  void check() const { C10_CUDA_CHECK(begun_); }
  ~Recording() {
    cudaGraph_t half = nullptr;
    if (begun_ == cudaSuccess) cudaStreamEndCapture(stream_.stream(), &half);
    if (half != nullptr) cudaGraphDestroy(half);
    cudaGetLastError();  // of a capture that failed
    c10::cuda::CUDACachingAllocator::endAllocateToPool(stream_.device_index(), pool_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  c10::cuda::CUDAStream stream_;
  c10::MempoolId_t pool_;
  cudaError_t begun_ = cudaErrorUnknown;
};

class Graph final : public retort::kernels::DeviceGraph {
 public:
  Graph(c10::DeviceIndex device, const std::function<void()>& work) : device_(device) {
    const c10::cuda::CUDAGuard there(device);
    // What the passes before have left is given back: a pool gets nothing of it. LibTorch gives back what all devices of the
    // process have at once, waits for each, and fails where one is being captured: ranks that are threads keep theirs.
    if (is_alone()) c10::cuda::CUDACachingAllocator::emptyCache();
    const int64_t before = reserved();
    const c10::cuda::CUDAStreamGuard beside(c10::cuda::getStreamFromPool(false, device));
    Recording recording(c10::cuda::getCurrentCUDAStream(device), pool_.id);
    pool_.device = device;
    recording.check();
    work();
    graph_.reset(recording.finish());
    bytes_ = static_cast<uint64_t>(std::max<int64_t>(0, reserved() - before));
    refuse_the_host(graph_.get());
    cudaGraphExec_t ready = nullptr;
    C10_CUDA_CHECK(cudaGraphInstantiate(&ready, graph_.get(), 0));
    ready_.reset(ready);
  }
  void replay() override {
    const c10::cuda::CUDAGuard there(device_);
    C10_CUDA_CHECK(cudaGraphLaunch(ready_.get(), c10::cuda::getCurrentCUDAStream(device_).stream()));
  }
  uint64_t bytes() const override { return bytes_; }

 private:
  int64_t reserved() const { return reserved(device_); }
  static int64_t reserved(c10::DeviceIndex device) {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return c10::cuda::CUDACachingAllocator::getDeviceStats(device).reserved_bytes[kAll].current;
  }
  // Whether the process has memory on no other device.
  bool is_alone() const {
    for (c10::DeviceIndex other = 0; other < c10::cuda::device_count(); ++other)
      if (other != device_ && reserved(other) > 0) return false;
    return true;
  }
  struct Pool {
    c10::MempoolId_t id{next(), 0};
    c10::DeviceIndex device = -1;  // once it has begun
    static c10::CaptureId_t next() {
      static std::atomic<c10::CaptureId_t> number{0};
      return ++number;
    }
    Pool() = default;
    ~Pool() {
      if (device >= 0) c10::cuda::CUDACachingAllocator::releasePool(device, id);
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
  };
  struct Destroy {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  c10::DeviceIndex device_;
  uint64_t bytes_ = 0;
  Pool pool_;
  std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Destroy> graph_;
  std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy> ready_;
};

}  // namespace

const char* retort_cuda_stamp() { return RETORT_PLUGIN_STAMP; }

// LibTorch's own half comes first: who asks whether it has CUDA before that is told no for good.
const char* retort_cuda_start() {
  static const std::string why = []() -> std::string {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
    if (c10::cuda::device_count() == 0) return "no CUDA device";
    return at::hasCUDA() ? "" : "libtorch_cuda was loaded after a backward pass";
  }();
  return why.empty() ? nullptr : why.c_str();
}

const retort::kernels::cuda::Table* retort_cuda_kernels() { return &retort::kernels::cuda::device::table(); }

void retort_cuda_enqueue(const at::Tensor& on, const std::function<void(Stream)>& kernels) {
  const c10::cuda::CUDAGuard device(on.device());
  kernels(c10::cuda::getCurrentCUDAStream(on.get_device()).stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

retort::kernels::DeviceGraph* retort_cuda_capture(const at::Device& device,
                                                  const std::function<void()>& work) {
  return std::make_unique<Graph>(device.index(), work).release();
}
