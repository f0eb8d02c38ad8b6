// The batches of a step, sent to a device ahead of their use.
#include "data/batch_copies.h"

#include <gtest/gtest.h>

#include "data/on_device.h"
#include "tests/fake_device/training.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

using data::Batch, data::BatchCopies;

std::vector<Batch> batches(int64_t first) {
  std::vector<Batch> out;
  for (int64_t number = first; number < first + 3; ++number) {
    Batch& batch = out.emplace_back(train::tiny_batch(number));
    batch.positions_BT = at::arange(batch.tokens_BT.size(1)).expand_as(batch.tokens_BT);
    batch.source_B = at::zeros({batch.tokens_BT.size(0)}, at::kLong);
  }
  return out;
}

void expect_there(Batch got, Batch want) {
  const auto there = read_by_models(got), here = read_by_models(want);
  for (size_t i = 0; i < there.size(); ++i) {
    ASSERT_EQ(there[i]->defined(), here[i]->defined());
    if (!here[i]->defined()) continue;
    EXPECT_EQ(there[i]->device(), fake_device());
    EXPECT_TRUE(same_bits(there[i]->add(1).cpu(), here[i]->add(1)));
  }
  EXPECT_TRUE(got.source_B.is_same(want.source_B)) << "places stay";
  EXPECT_EQ(got.samples, want.samples);
}

// All of them before the first is taken, and nothing of it waits; the batches' own memory is not read after that.
TEST(BatchCopies, AreSentAheadAndTheHostWaitsForNothing) {
  BatchCopies copies(fake_device());
  for (const int64_t step : {0, 1}) {
    const std::vector<Batch> want = batches(3 * step);
    std::vector<Batch> given = want;
    for (Batch& batch : given)
      for (at::Tensor* x : read_by_models(batch))
        if (x->defined()) *x = x->clone();
    const Watch watch;
    copies.send(given);
    EXPECT_EQ(watch.traffic().to_device, 9);
    EXPECT_EQ(watch.traffic().uploads_ahead, 9);
    for (Batch& batch : given)
      for (at::Tensor* x : read_by_models(batch))
        if (x->defined()) x->fill_(7);
    std::vector<Batch> got;
    for (const size_t g : {0, 1, 2}) got.push_back(copies.take(g));
    EXPECT_EQ(watch.traffic().to_device, 9);
    EXPECT_EQ(watch.traffic().uploads_waited, 0);
    EXPECT_EQ(watch.traffic().host_reads(), 0);
    for (const size_t g : {0, 1, 2}) expect_there(got[g], want[g]);
    expect_there(copies.take(1), want[1]);  // as a step that is computed again does
  }
}

// A batch that was taken outlives its step, and one that was not goes with it.
TEST(BatchCopies, KeepTheirMemoryAsLongAsItIsUsed) {
  BatchCopies copies(fake_device());
  const std::vector<Batch> early = batches(0), late = batches(6);
  copies.send(early);
  const Batch first = copies.take(0);
  copies.send(batches(3));
  copies.send(late);
  expect_there(first, early[0]);
  expect_there(copies.take(2), late[2]);
}

TEST(BatchCopies, OnTheCpuNothingIsCopied) {
  BatchCopies copies(at::kCPU);
  const std::vector<Batch> given = batches(0);
  copies.send(given);
  for (const size_t g : {0, 1, 2}) {
    EXPECT_TRUE(copies.take(g).tokens_BT.is_same(given[g].tokens_BT));
    EXPECT_TRUE(copies.take(g).labels_BT.is_same(given[g].labels_BT));
  }
}

}  // namespace
}  // namespace retort::testing
