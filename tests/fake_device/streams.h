// The streams of the fake devices, and who waits for whom. Work is done as it is enqueued, all but copies from pinned memory in a
// stream beside the default one: those are put off until something waits for them, as on the slowest of devices, so that
// who does not wait reads what was there before (NaN). And each use of memory is a mark in its stream's time: a stream
// that reads or writes what another has written, or writes what another has read, must have waited for it by an event, or the host
// before it (c10::Error); memory that is freed must have been used by no other stream than the one that it was allocated in,
// unless that has waited, or record_stream() was called (the process ends). A storage is one piece of memory. A stream that
// is captured (graph.h) does nothing: its uses are noted, no copy comes from the host, nobody waits for it (c10::Error). Any thread.
#pragma once

#include <ATen/ATen.h>

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace retort::testing {

class Streams {
 public:
  static Streams& get();

  // The calling thread's, of each device.
  static c10::Stream current(c10::DeviceIndex device);
  static c10::Stream exchange(const c10::Stream& next);
  c10::Stream from_pool(c10::DeviceIndex device);

  struct Event;  // what had been enqueued in a stream
  void record(Event*& event, const c10::Stream& stream);
  void block(const Event* event, const c10::Stream& stream);
  void host_waits(const Event* event);
  void host_waits(const c10::Stream& stream);
  static void forget(Event* event);
  static c10::DeviceIndex device_of(const Event* event);

  // Work in the current stream of the memory's device.
  void reads(const at::Tensor& x);
  void writes(const at::Tensor& x);
  void uses(c10::DeviceIndex device, const void* memory, bool write);
  void writes_later(const at::Tensor& x, std::function<void()> work);  // put off

  using Note = std::function<void(const void* memory, bool write)>;
  void begin_capture(const c10::Stream& stream, Note note);
  void end_capture(const c10::Stream& stream);
  void refuse_if_captured(const c10::Stream& stream, const char* what);

  void allocated(const void* memory, const c10::Stream& stream);
  void also_used_in(const void* memory, const c10::Stream& stream);  // record_stream()
  void freed(const void* memory);

 private:
  using Name = std::pair<c10::DeviceIndex, c10::StreamId>;
  using Times = std::map<Name, int64_t>;
  struct PutOff {
    int64_t time;
    const void* memory;
    std::function<void()> work;
  };
  struct Lane {
    Times seen;  // how far streams are, itself among them, before what it does next
    std::deque<PutOff> put_off;
  };
  struct Block {
    Name owner;
    std::pair<Name, int64_t> written;
    Times used;
    std::set<Name> recorded;
  };

  static Name name_of(const c10::Stream& stream) { return {stream.device_index(), stream.id()}; }
  static void merge(Times& into, const Times& from);
  static bool has_seen(const Times& seen, const Name& name, int64_t time);
  Lane& enter(const Name& name);
  void do_put_off(Lane& lane, int64_t until);
  int64_t use(const Name& me, const void* memory, Lane& lane, bool write);
  bool is_captured(const Name& name) const { return captured_.contains(name); }

  std::recursive_mutex mutex_;  // what is put off may hold the last of some memory
  std::map<Name, Lane> lanes_;
  std::map<c10::DeviceIndex, Times> host_;  // of what the host has waited for
  std::map<const void*, Block> blocks_;
  std::map<Name, Note> captured_;
  int64_t from_pool_ = 0;
};

}  // namespace retort::testing
