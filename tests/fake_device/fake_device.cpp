#include "tests/fake_device/fake_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "core/error.h"
#include "kernels/cuda_ops.h"
#include "tests/cuda_emulation/thread.h"
#include "tests/fake_device/graph.h"
#include "tests/fake_device/host_operator.h"
#include "tests/fake_device/memory.h"
#include "tests/fake_device/order_of_sums.h"
#include "tests/fake_device/streams.h"

namespace retort::testing {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

// --- what has happened

std::mutex counting;
Traffic traffic_so_far;
thread_local int uncounted = 0;

template <class Change>
void count(Change change) {
  if (uncounted > 0) return;
  const std::lock_guard lock(counting);
  change(traffic_so_far);
}

bool on_device(const at::Tensor& x) { return x.device().type() == kType; }

// --- memory and the thread's device

thread_local int current = 0;

// While one lives, the thread allocates on that device.
class On {
 public:
  explicit On(std::optional<c10::Device> device) : before_(current) {
    if (device && device->has_index()) current = device->index();
  }
  ~On() { current = before_; }
  On(const On&) = delete;
  On& operator=(const On&) = delete;

 private:
  int before_;
};

// It tells what is in use, as that of a GPU.
struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    const auto device = static_cast<c10::DeviceIndex>(current);
    Graph* const graph = Graph::under_way(device);
    void* const at = Memory::get().allocate(bytes, graph == nullptr ? nullptr : &graph->pool());
    Streams::get().allocated(at, graph == nullptr ? Streams::current(device) : graph->home());
    return {at, at, &release, fake_device(current)};
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override { RETORT_ASSERT(false); }  // the guard's
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    const Memory::Use use = Memory::get().use();
    c10::CachingDeviceAllocator::DeviceStats out;
    auto& allocated = out.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    auto& reserved = out.reserved_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    allocated.current = reserved.current = static_cast<int64_t>(use.now);
    allocated.peak = static_cast<int64_t>(use.peak);
    return out;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override { Memory::get().begin_peak(); }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override {
    const Memory::Use use = Memory::get().use();
    return {use.most - std::min(use.most, use.now), use.most};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(Memory::get().readable(to), Memory::get().readable(from), bytes);
  }
  static void release(void* at) {
    Streams::get().freed(at);
    Memory::get().free(at);
  }
};
Allocator allocator;
REGISTER_ALLOCATOR(kType, &allocator)

// Host memory from which the device copies by itself.
struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    constexpr size_t kLine = 64;
    void* const at = std::aligned_alloc(kLine, (bytes + kLine) / kLine * kLine);
    const std::lock_guard lock(mutex);
    live.insert(at);
    return {at, at, &release, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  static bool has(const void* at) {
    const std::lock_guard lock(mutex);
    return live.contains(at);
  }
  static void release(void* at) {
    {
      const std::lock_guard lock(mutex);
      live.erase(at);
    }
    std::free(at);
  }
  static inline std::mutex mutex;
  static inline std::set<const void*> live;
};
PinnedAllocator pinned_allocator;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return fake_device(std::exchange(current, device.index()));
  }
  c10::Device getDevice() const override { return fake_device(current); }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override { return Streams::current(index_of(device)); }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, fake_device(index_of(device)));
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return Streams::get().from_pool(index_of(device));
  }
  c10::Stream exchangeStream(c10::Stream next) const override { return Streams::exchange(next); }
  c10::DeviceIndex deviceCount() const noexcept override { return kFakeDevices; }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    auto* one = static_cast<Streams::Event*>(*event);
    Streams::get().record(one, stream);
    *event = one;
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) Streams::get().block(static_cast<Streams::Event*>(event), stream);
  }
  bool queryEvent(void* event) const override {  // when it is asked, time has passed
    if (event == nullptr) return true;
    const auto* const one = static_cast<Streams::Event*>(event);
    const int device = Streams::device_of(one);
    TORCH_CHECK(device == current, "fake device: a thread of device ", current,
                " asks for an event of device ", device, ": CUDA would open a context on the thread's");
    Streams::get().host_waits(one);
    return true;
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    Streams::forget(static_cast<Streams::Event*>(event));
  }
  bool queryStream(const c10::Stream& stream) const override {
    Streams::get().host_waits(stream);
    return true;
  }
  void synchronizeStream(const c10::Stream& stream) const override { Streams::get().host_waits(stream); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    Streams::get().also_used_in(data.get(), stream);
  }
  static c10::DeviceIndex index_of(c10::Device device) {
    return device.has_index() ? device.index() : static_cast<c10::DeviceIndex>(current);
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isPinnedPtr(const void* at) const override { return PinnedAllocator::has(at); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
};
// A kind of device with a name is one whose streams backward follows.
const bool kNamed = [] {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  c10::register_privateuse1_backend("fake");
  return true;
}();

// --- operators of the device's own

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>,
                 std::optional<c10::MemoryFormat> format) {
  const On there(device);
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  const On there(device);
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

void wait_for(const at::Tensor& x) { Streams::get().host_waits(Streams::current(x.device().index())); }

constexpr const char* kHostReads = "the host reads what it makes";

void copy_on_host(const at::Tensor& from, const at::Tensor& to) {
  const at::AutoDispatchBelowADInplaceOrView below;
  at::Tensor out = on_device(to) ? on_host(to) : to;
  out.copy_(on_device(from) ? on_host(from) : from);
}

void upload(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  Streams::get().refuse_if_captured(Streams::current(to.device().index()),
                                    "it copies from memory of the host's");
  const bool waited = !non_blocking || !from.is_pinned(),
             ahead = !waited && Streams::current(to.device().index()).id() != 0;
  count([&](Traffic& t) {
    ++t.to_device;
    t.uploads_waited += waited ? 1 : 0;
    t.uploads_ahead += ahead ? 1 : 0;
  });
  if (ahead) return Streams::get().writes_later(to, [from, out = on_host(to)] { copy_on_host(from, out); });
  Streams::get().writes(to);
  copy_on_host(from, to);
  if (!non_blocking) wait_for(to);
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (!on_device(from)) {
    upload(from, to, non_blocking);
    return to;
  }
  if (!on_device(to)) Streams::get().refuse_if_captured(Streams::current(from.device().index()), kHostReads);
  Streams::get().reads(from);
  if (on_device(to)) Streams::get().writes(to);
  copy_on_host(from, to);
  if (!on_device(to)) wait_for(from);
  if (Graph* const graph = on_device(to) ? Graph::under_way(to.device().index()) : nullptr)
    graph->add([from = on_host(from), to = on_host(to)] { to.copy_(from); });
  count([&](Traffic& t) {
    if (on_device(to)) return void(++t.operators["aten::copy_"]);
    ++t.to_host, ++t.reads_of[from.device().index()];
  });
  return to;
}

void record_stream(at::Tensor& x, c10::Stream stream) {
  Streams::get().also_used_in(x.storage().data(), stream);
}

// Contiguous; what was there is lost unless it stays large enough.
const at::Tensor& resize(const at::Tensor& x, c10::IntArrayRef size, std::optional<c10::MemoryFormat>) {
  const auto bytes = static_cast<size_t>(c10::multiply_integers(size)) * x.element_size();
  c10::StorageImpl* const storage = x.storage().unsafeGetStorageImpl();
  if (bytes > storage->nbytes()) {
    const On there(x.device());
    storage->set_data_ptr_noswap(allocator.allocate(bytes));
    storage->set_nbytes(bytes);
  }
  x.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return x;
}

// What the host is told of an operator's tensors, it must wait for.
void refuse_where_captured(const torch::jit::Stack& stack) {
  for (const c10::IValue& value : stack)
    if (value.isTensor() && value.toTensor().defined() && on_device(value.toTensor()))
      Streams::get().refuse_if_captured(Streams::current(value.toTensor().device().index()), kHostReads);
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  refuse_without_order(op.schema(), *stack);
  const std::string& name = op.schema().name();
  const bool scalar = name == "aten::_local_scalar_dense" || name == "aten::equal";
  const bool shape = name == "aten::nonzero" || name == "aten::masked_select" || name == "aten::_unique2";
  if (scalar || shape) refuse_where_captured(*stack);
  count([&](Traffic& t) {
    t.scalars += scalar ? 1 : 0;
    t.shapes += shape ? 1 : 0;
    std::string full = name;
    if (!op.schema().overload_name().empty()) full += "." + op.schema().overload_name();
    ++t.operators[full];
  });
  const std::optional<at::Device> where = run_on_host(op, stack);
  if (!where || (!scalar && !shape)) return;
  count([&](Traffic& t) { ++t.reads_of[where->index()]; });
  Streams::get().host_waits(Streams::current(where->index()));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("resize_", &resize);
  m.impl("record_stream", &record_stream);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

// --- our kernels

// Launches that are kept, with what of their arguments is an address.
void record(Graph& graph, const std::function<void(kernels::cuda::Stream)>& kernels) {
  const emulation::Taker taker([&](const emulation::Launch& launch) {
    for (size_t at = 0; at + sizeof(void*) <= launch.bytes; at += sizeof(void*)) {
      const void* word = nullptr;
      std::memcpy(&word, static_cast<const char*>(launch.arguments.get()) + at, sizeof word);
      if (Memory::get().block_of(word).begin != nullptr) graph.uses(word, false);
    }
    graph.add([launch] {
      const Memory::Opened opened;
      launch.run();
    });
  });
  kernels(nullptr);
}

void enqueue(const at::Tensor& on, const std::function<void(kernels::cuda::Stream)>& kernels) {
  RETORT_ASSERT(on_device(on));
  count([](Traffic& t) { ++t.launches; });
  Streams::get().reads(on);
  if (Graph* const graph = Graph::under_way(on.device().index())) return record(*graph, kernels);
  const Memory::Opened opened;
  kernels(nullptr);
}

const kernels::cuda::Ops& emulated_ops() {
  static const kernels::cuda::Ops ops(kernels::cuda::emulated::table(), enqueue);
  return ops;
}

const bool kProvided =
    (kernels::cuda::provide(kType, emulated_ops()), kernels::provide_graphs(kType, &Graph::capture), true);

}  // namespace

at::Device fake_device(int index) { return {kType, static_cast<c10::DeviceIndex>(index)}; }

void count_graph() {
  count([](Traffic& t) { ++t.graphs; });
}
void count_replay() {
  count([](Traffic& t) { ++t.replays; });
}

Uncounted::Uncounted() { ++uncounted; }
Uncounted::~Uncounted() { --uncounted; }

Watch::Watch() {
  count([&](const Traffic& t) { before_ = t; });
}

Traffic Watch::traffic() const {
  Traffic out;
  count([&](const Traffic& t) { out = t; });
  out.to_device -= before_.to_device;
  out.to_host -= before_.to_host;
  out.uploads_waited -= before_.uploads_waited;
  out.uploads_ahead -= before_.uploads_ahead;
  out.scalars -= before_.scalars;
  out.shapes -= before_.shapes;
  for (const auto& [device, times] : before_.reads_of) out.reads_of[device] -= times;
  out.launches -= before_.launches;
  out.graphs -= before_.graphs;
  out.replays -= before_.replays;
  for (const auto& [name, times] : before_.operators)
    if ((out.operators[name] -= times) == 0) out.operators.erase(name);
  return out;
}

}  // namespace retort::testing
