#include "tests/fake_device/streams.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <limits>

#include "core/error.h"
#include "tests/fake_device/fake_device.h"

namespace retort::testing {
namespace {

constexpr int64_t kAll = std::numeric_limits<int64_t>::max(), kPool = 32;

thread_local std::array<c10::StreamId, kFakeDevices> current_id{};

c10::Stream stream_of(c10::DeviceIndex device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, fake_device(device), id);
}

const void* memory_of(const at::Tensor& x) { return x.storage().data(); }

}  // namespace

struct Streams::Event {
  Name stream;
  Times seen;
  bool captured = false;
};

Streams& Streams::get() {
  static Streams* const streams = new Streams;  // tensors of static objects outlive everything
  return *streams;
}

c10::Stream Streams::current(c10::DeviceIndex device) {
  return stream_of(device, current_id.at(static_cast<size_t>(device)));
}

c10::Stream Streams::exchange(const c10::Stream& next) {
  c10::StreamId& id = current_id.at(static_cast<size_t>(next.device_index()));
  return stream_of(next.device_index(), std::exchange(id, next.id()));
}

c10::Stream Streams::from_pool(c10::DeviceIndex device) {
  const std::lock_guard lock(mutex_);
  return stream_of(device, 1 + from_pool_++ % kPool);
}

// --- who waits

void Streams::record(Event*& event, const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  const Name name = name_of(stream);
  if (event == nullptr) event = new Event;
  *event = {name, enter(name).seen, is_captured(name)};
}

void Streams::block(const Event* event, const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  TORCH_CHECK(event->captured == is_captured(name_of(stream)), "fake device: of streams ",
              event->stream.second, " and ", stream.id(),
              ", of which one waits for the other, one alone is captured");
  do_put_off(lanes_[event->stream], event->seen.at(event->stream));
  merge(enter(name_of(stream)).seen, event->seen);
}

void Streams::host_waits(const Event* event) {
  const std::lock_guard lock(mutex_);
  TORCH_CHECK(!event->captured, "fake device: the host waits for an event of a stream that is captured");
  do_put_off(lanes_[event->stream], event->seen.at(event->stream));
  merge(host_[event->stream.first], event->seen);
}

void Streams::host_waits(const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  refuse_if_captured(stream, "the host waits for it");
  Lane& lane = enter(name_of(stream));
  do_put_off(lane, kAll);
  merge(host_[stream.device_index()], lane.seen);
}

void Streams::forget(Event* event) { delete event; }

c10::DeviceIndex Streams::device_of(const Event* event) { return event->stream.first; }

// --- work

void Streams::reads(const at::Tensor& x) { uses(x.device().index(), memory_of(x), false); }
void Streams::writes(const at::Tensor& x) { uses(x.device().index(), memory_of(x), true); }

void Streams::uses(c10::DeviceIndex device, const void* memory, bool write) {
  const std::lock_guard lock(mutex_);
  const Name me = name_of(current(device));
  if (const auto found = captured_.find(me); found != captured_.end()) return found->second(memory, write);
  Lane& lane = enter(me);
  do_put_off(lane, kAll);
  use(me, memory, lane, write);
}

void Streams::writes_later(const at::Tensor& x, std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  const c10::Stream here = current(x.device().index());
  refuse_if_captured(here, "it copies from memory of the host's");
  Lane& lane = enter(name_of(here));
  const int64_t time = use(name_of(here), memory_of(x), lane, true);
  lane.put_off.push_back({time, memory_of(x), std::move(work)});
}

// What is enqueued comes after all that the host has waited for.
Streams::Lane& Streams::enter(const Name& name) {
  Lane& lane = lanes_[name];
  merge(lane.seen, host_[name.first]);
  lane.seen.try_emplace(name, 0);
  return lane;
}

void Streams::do_put_off(Lane& lane, int64_t until) {
  while (!lane.put_off.empty() && lane.put_off.front().time <= until) {
    const PutOff first = std::move(lane.put_off.front());
    lane.put_off.pop_front();
    first.work();
  }
}

// The time of a use in the stream `me`.
int64_t Streams::use(const Name& me, const void* memory, Lane& lane, bool write) {
  const auto found = blocks_.find(memory);
  RETORT_ASSERT(found != blocks_.end());
  Block& block = found->second;
  const auto& [writer, at] = block.written;
  TORCH_CHECK(has_seen(lane.seen, writer, at), "fake device: stream ", me.second,
              write ? " writes" : " reads", " what stream ", writer.second,
              " has written, and has not waited for it");
  if (write)
    for (const auto& [reader, time] : block.used)
      TORCH_CHECK(has_seen(lane.seen, reader, time), "fake device: stream ", me.second,
                  " writes what stream ", reader.second, " has used, and has not waited for it");
  const int64_t now = ++lane.seen[me];
  block.used[me] = now;
  if (write) block.written = {me, now};
  return now;
}

// --- streams that are captured

void Streams::begin_capture(const c10::Stream& stream, Note note) {
  const std::lock_guard lock(mutex_);
  RETORT_ASSERT(captured_.emplace(name_of(stream), std::move(note)).second);
}

void Streams::end_capture(const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  captured_.erase(name_of(stream));
}

void Streams::refuse_if_captured(const c10::Stream& stream, const char* what) {
  const std::lock_guard lock(mutex_);
  TORCH_CHECK(!is_captured(name_of(stream)), "fake device: stream ", stream.id(),
              " is captured, where no graph can have it that ", what);
}

// --- memory

void Streams::allocated(const void* memory, const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  const Name owner = name_of(stream);
  blocks_[memory] = {
      owner, {owner, ++enter(owner).seen[owner]}, {}, {}};  // who had it before may not be through
}

void Streams::also_used_in(const void* memory, const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  blocks_.at(memory).recorded.insert(name_of(stream));
}

void Streams::freed(const void* memory) {
  const std::lock_guard lock(mutex_);
  const Block& block = blocks_.at(memory);
  Lane& owner = enter(block.owner);
  for (const auto& [name, time] : block.used) {
    if (has_seen(owner.seen, name, time) || block.recorded.contains(name)) continue;
    fmt::print(stderr,
               "fake device: memory of stream {} is freed, of which stream {} has not been waited for\n",
               block.owner.second, name.second);
    std::abort();
  }
  int64_t last = 0;  // what is put off: whoever gets the memory next may be in another stream
  for (const PutOff& work : owner.put_off)
    if (work.memory == memory) last = work.time;
  do_put_off(owner, last);
  blocks_.erase(memory);
}

void Streams::merge(Times& into, const Times& from) {
  for (const auto& [name, time] : from) into[name] = std::max(into[name], time);
}

bool Streams::has_seen(const Times& seen, const Name& name, int64_t time) {
  const auto found = seen.find(name);
  return found != seen.end() && found->second >= time;
}

}  // namespace retort::testing
