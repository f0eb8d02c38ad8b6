// What the fake device holds about streams: each fault that it is to find, and the same without it.
#include "tests/fake_device/streams.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/memory.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

at::Tensor numbers() { return at::arange(12, at::kFloat); }

const c10::impl::VirtualGuardImpl& guard() {
  static const c10::impl::VirtualGuardImpl of(fake_device().type());
  return of;
}

// Work on a separate stream, followed by an event.
struct Beside {
  c10::Stream stream = guard().getStreamFromGlobalPool(fake_device());
  c10::Event done{fake_device().type()};

  at::Tensor upload(const at::Tensor& x) {
    const c10::StreamGuard in(stream);
    const at::Tensor there = x.to(fake_device(), /*non_blocking=*/true);
    done.record(stream);
    return there;
  }
};

c10::Stream here() { return guard().getStream(fake_device()); }

TEST(Streams, ACopyFromPinnedMemoryIsPutOffUntilItIsWaitedFor) {
  Beside beside;
  const at::Tensor x = numbers().pin_memory();
  ASSERT_TRUE(x.is_pinned());
  EXPECT_FALSE(numbers().is_pinned());
  const Watch watch;
  const at::Tensor there = beside.upload(x);
  x[3] = 30;  // the device reads what the memory holds when it comes to it
  EXPECT_THROW(there.add(1), c10::Error) << "a read that does not wait";
  EXPECT_THROW(there.zero_(), c10::Error) << "a write that does not wait";
  beside.done.block(here());
  EXPECT_TRUE(same_bits(there.add(1).cpu(), x.add(1)));
  EXPECT_EQ(watch.traffic().uploads_ahead, 1);
  EXPECT_EQ(watch.traffic().uploads_waited, 0);
  there.record_stream(here());
}

// What no check of uses sees, a kernel's operand for one, reads NaN.
TEST(Streams, WhoDoesNotWaitReadsWhatWasThereBefore) {
  Beside beside;
  const at::Tensor there = beside.upload(numbers().pin_memory());
  const auto* const first = static_cast<const float*>(Memory::get().readable(there.storage().data()));
  EXPECT_TRUE(std::isnan(first[5]));
  beside.done.block(here());
  EXPECT_EQ(first[5], 5.0f);
}

TEST(Streams, AHostThatHasWaitedOrdersWhatItEnqueuesNext) {
  Beside beside;
  const at::Tensor there = beside.upload(numbers().pin_memory());
  EXPECT_TRUE(beside.done.query());
  EXPECT_TRUE(same_bits(there.cpu(), numbers()));
}

// As cudaEventQuery opens a context on the device of the thread that calls it, whatever the event's.
TEST(Streams, AThreadAsksForEventsOfItsOwnDevice) {
  c10::Event there(fake_device().type());
  there.record(guard().getDefaultStream(fake_device(1)));
  EXPECT_THROW(there.query(), c10::Error);
  const c10::DeviceGuard on(fake_device(1));
  EXPECT_TRUE(there.query());
}

// Memory that one stream reads is written by another.
TEST(Streams, AWriteWaitsForReaders) {
  Beside beside;
  const at::Tensor x = numbers().to(fake_device());
  c10::Event before(fake_device().type());
  before.record(here());
  before.block(beside.stream);
  {
    const c10::StreamGuard in(beside.stream);
    x.sum();
    beside.done.record(beside.stream);
  }
  EXPECT_THROW(x.zero_(), c10::Error);
  beside.done.block(here());
  x.zero_();
}

// Of memory that was given in one stream, the work that had it before may not be through.
TEST(Streams, AnotherStreamWaitsForTheOneThatAllocates) {
  Beside beside;
  const at::Tensor x = at::empty({3}, at::TensorOptions(fake_device()));
  const c10::StreamGuard in(beside.stream);
  EXPECT_THROW(at::Tensor(x).zero_(), c10::Error);
}

TEST(StreamsDeathTest, MemoryThatAnotherStreamUsesIsNotFreedUnderIt) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto use = [](bool recorded) {
    Beside beside;
    const at::Tensor there = beside.upload(numbers().pin_memory());
    beside.done.block(here());
    there.add(1);
    if (recorded) there.record_stream(here());
  };
  use(true);
  EXPECT_DEATH(use(false), "memory of stream [0-9]+ is freed, of which stream 0 has not been waited for");
}

}  // namespace
}  // namespace retort::testing
