#include "comm/trace.h"

#include <gmock/gmock.h>

#include <functional>

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string problem_of(int ranks, const std::function<void(Comm&)>& schedule) {
  Trace trace(ranks);
  for (int rank = 0; rank < ranks; ++rank) schedule(*trace.rank(rank));
  return trace.problem();
}

// Stages one after another: each gets `size` elements of every micro-batch from the one before it, and passes them on; then
// back. `late`: a stage that asks for the way back of a micro-batch before it passes the next one on.
void pipeline(Comm& all, int64_t size, int micro_batches, int late = -1, int64_t other_size = 0) {
  const int stage = all.rank(), stages = all.size();
  const auto before = stage > 0 ? all.subgroup({stage - 1, stage}) : nullptr;
  const auto after = stage + 1 < stages ? all.subgroup({stage, stage + 1}) : nullptr;
  const auto message = [&](bool there) {
    return there ? at::zeros({size + (stage == 1 ? other_size : 0)}) : at::Tensor();
  };
  const auto trade = [&](const std::shared_ptr<Comm>& pair, bool sends) {
    const int mine = pair->rank(), other = 1 - mine;
    std::vector<at::Tensor> send(2), receive(2);
    (sends ? send : receive)[static_cast<size_t>(other)] = message(true);
    pair->exchange(send, receive);
  };
  const auto backward = [&] {
    if (after) trade(after, false);
    if (before) trade(before, true);
  };
  for (int m = 0; m < micro_batches; ++m) {
    if (before) trade(before, false);
    if (after) trade(after, true);
    if (stage == late) backward();
  }
  for (int m = 0; m < micro_batches && stage != late; ++m) backward();
  all.all_reduce(at::zeros({1}), Reduce::kSum);
}

}  // namespace

TEST(Trace, ARightScheduleHasNoProblem) {
  for (const int stages : {1, 2, 4})
    for (const int micro_batches : {1, 3, 8})
      EXPECT_EQ(problem_of(stages, [&](Comm& all) { pipeline(all, 5, micro_batches); }), "");
  EXPECT_EQ(problem_of(4,
                       [](Comm& all) {
                         const auto row = all.split(0);
                         row->barrier();
                         all.reduce_scatter(at::zeros({2}), at::zeros({8}), {0, 2, 4, 6, 8});
                       }),
            "");
}

TEST(Trace, NamesRanksThatWaitForEachOther) {
  // Two groups in two orders.
  EXPECT_THAT(
      problem_of(3,
                 [](Comm& all) {
                   if (all.rank() == 2)
                     return all.subgroup({0, 2})->barrier(), all.subgroup({1, 2})->barrier();
                   if (all.rank() == 1)
                     return all.subgroup({1, 2})->barrier(), all.subgroup({0, 1})->barrier();
                   all.subgroup({0, 1})->barrier(), all.subgroup({0, 2})->barrier();
                 }),
      AllOf(HasSubstr("rank 0 in call 0"), HasSubstr("rank 1 in call 0"), HasSubstr("rank 2 in call 0")));
  EXPECT_THAT(problem_of(2,
                         [](Comm& all) {
                           all.barrier();
                           if (all.rank() == 0) all.barrier();
                         }),
              HasSubstr("rank 0 in call 1, barrier among ranks 0, 1"));
}

TEST(Trace, NamesCallsThatDiffer) {
  EXPECT_THAT(problem_of(2,
                         [](Comm& all) {
                           all.barrier();
                           all.all_reduce(at::zeros({4 + all.rank()}), Reduce::kSum);
                         }),
              AllOf(HasSubstr("call 1 of rank 0"), HasSubstr("4 Float"), HasSubstr("5 Float")));
  EXPECT_THAT(problem_of(3, [](Comm& all) { pipeline(all, 5, 2, 1); }),
              HasSubstr("rank 1 sends rank 2 nothing, which expects 5 Float"));
  EXPECT_THAT(problem_of(3, [](Comm& all) { pipeline(all, 5, 2, -1, 2); }),
              HasSubstr("rank 0 sends rank 1 5 Float, which expects 7 Float"));
}

TEST(Trace, KeepsTheOrderOfEachRank) {
  Trace trace(2);
  for (int rank = 0; rank < 2; ++rank) pipeline(*trace.rank(rank), 3, 2);
  ASSERT_EQ(trace.calls()[0].size(), 5U);
  EXPECT_EQ(trace.calls()[0][0].sends, (std::vector<std::string>{"", "3 Float"}));
  EXPECT_EQ(trace.calls()[0].back().what, "all_reduce 0 of 1 Float");
}

}  // namespace retort::comm
