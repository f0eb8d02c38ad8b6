#include "tests/fake_device/graph.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StreamGuard.h>

#include <mutex>

#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/streams.h"

namespace retort::testing {
namespace {

std::mutex mutex;
std::vector<std::pair<c10::Stream, Graph*>> captured;

// While one lives, what the stream is given goes to the graph. Backward is another thread in the same stream.
class Capturing {
 public:
  Capturing(const c10::Stream& stream, Graph& graph) : stream_(stream) {
    Streams::get().begin_capture(stream,
                                 [&graph](const void* memory, bool write) { graph.uses(memory, write); });
    const std::lock_guard lock(mutex);
    captured.emplace_back(stream, &graph);
  }
  ~Capturing() {
    Streams::get().end_capture(stream_);
    const std::lock_guard lock(mutex);
    std::erase_if(captured, [this](const auto& one) { return one.first == stream_; });
  }
  Capturing(const Capturing&) = delete;
  Capturing& operator=(const Capturing&) = delete;

 private:
  c10::Stream stream_;
};

}  // namespace

Graph* Graph::under_way(c10::DeviceIndex device) {
  const c10::Stream here = Streams::current(device);
  const std::lock_guard lock(mutex);
  for (const auto& [stream, graph] : captured)
    if (stream == here) return graph;
  return nullptr;
}

std::unique_ptr<kernels::DeviceGraph> Graph::capture(const at::Device& device,
                                                     const std::function<void()>& work) {
  std::unique_ptr<Graph> graph(new Graph(Streams::current(device.index())));
  Streams::get().refuse_if_captured(graph->home_, "another one is captured");
  const c10::Stream beside = Streams::get().from_pool(device.index());
  {
    const c10::StreamGuard in(beside);
    const Capturing capturing(beside, *graph);
    work();
  }
  Memory::get().poison(graph->pool_);
  count_graph();
  return graph;
}

void Graph::uses(const void* address, bool write) {
  const Memory::Block block = Memory::get().block_of(address);
  TORCH_CHECK(block.begin != nullptr, "fake device: a graph uses memory that nothing has");
  if (block.pool == &pool_) return;
  TORCH_CHECK(!write, "fake device: a graph writes to memory that is not its own while it is captured");
  outside_[block.number] = block.begin;
}

void Graph::replay() {
  const c10::DeviceIndex device = home_.device_index();
  for (const auto& [number, memory] : outside_) {
    TORCH_CHECK(Memory::get().block_of(memory).number == number,
                "fake device: a graph reads memory that has been freed since it was captured");
    Streams::get().uses(device, memory, false);
  }
  const std::vector<const void*> kept = Memory::get().in_use(pool_);
  for (const void* memory : kept) Streams::get().uses(device, memory, true);
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView below;
  for (const std::function<void()>& work : work_) work();
  count_replay();
}

}  // namespace retort::testing
