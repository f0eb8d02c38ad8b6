// What any back end does with four ranks as two rows and two columns, whose collectives differ in number and size.
#pragma once

#include <gtest/gtest.h>

#include "comm/comm.h"
#include "tests/comm/rank_values.h"

namespace retort::comm {

inline void trade_in_rows_and_columns(Comm& all) {
  ASSERT_EQ(all.size(), 4);
  const int row = all.rank() / 2, column = all.rank() % 2;
  const auto in_row = all.subgroup({2 * row, 2 * row + 1}), in_column = all.subgroup({column, 2 + column});
  EXPECT_EQ(in_row->rank(), column);
  EXPECT_EQ(in_column->rank(), row);
  EXPECT_EQ(in_row->size(), 2);
  EXPECT_EQ(in_row->name(), all.name());
  std::vector<Pending> under_way;
  std::vector<at::Tensor> sums;
  for (int64_t turn = 0; turn < 3 + 4 * row; ++turn) {  // the second row has more to do
    sums.push_back(at::full({10 + 3000 * row}, 1.0 + all.rank()));
    under_way.push_back(in_row->all_reduce(sums.back(), Reduce::kSum));
  }
  const at::Tensor mine = at::full({1 + 5000 * column}, 10.0 * all.rank());
  under_way.push_back(in_column->broadcast(mine, 1));
  const at::Tensor gathered = at::empty({4}, at::kLong);
  under_way.push_back(all.all_gather(gathered, at::full({1}, all.rank(), at::kLong)));
  for (const Pending& one : under_way) one.wait();
  for (const at::Tensor& sum : sums) EXPECT_TRUE(sum.eq(row == 0 ? 3.0 : 7.0).all().item<bool>());
  EXPECT_TRUE(mine.eq(10.0 * (2 + column)).all().item<bool>());
  EXPECT_TRUE(gathered.equal(at::arange(4)));
  const auto alone = in_row->subgroup({column});  // of a subgroup
  EXPECT_EQ(alone->reduce(int64_t{5}, Reduce::kSum), 5);
  EXPECT_EQ(in_column->reduce(int64_t{all.rank()}, Reduce::kSum), 2 + 2 * column);
  all.barrier();
}

// What any back end does with messages: each rank sends the next one `rank + 1` elements and itself one, in a ring;
// then all sum what each keeps a part of.
inline void trade_messages(Comm& comm) {
  const int ranks = comm.size(), rank = comm.rank(), next = (rank + 1) % ranks,
            last = (rank + ranks - 1) % ranks;
  std::vector<at::Tensor> send(static_cast<size_t>(ranks)), receive(static_cast<size_t>(ranks));
  const auto of = [](int sender, int64_t count) {
    return at::arange(count).to(at::kDouble).add_(100.0 * sender);
  };
  send[static_cast<size_t>(rank)] = of(rank, 1),
  receive[static_cast<size_t>(rank)] = at::empty({1}, at::kDouble);
  send[static_cast<size_t>(next)] = of(rank, 4000 * rank + 2);
  receive[static_cast<size_t>(last)] = at::empty({4000 * last + 2}, at::kDouble);
  comm.exchange(send, receive).wait();
  EXPECT_TRUE(receive[static_cast<size_t>(last)].equal(of(last, 4000 * last + 2)));
  if (ranks > 1) {
    EXPECT_TRUE(receive[static_cast<size_t>(rank)].equal(of(rank, 1)));
  }
  // Nobody sends anything, or one alone.
  comm.exchange(std::vector<at::Tensor>(send.size()), std::vector<at::Tensor>(send.size())).wait();

  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kLong})
    for (const double skew : {0.0, 1.0}) {
      const std::vector<int64_t> bounds = run_bounds(ranks, 10007, skew);
      const int64_t first = bounds[static_cast<size_t>(rank)], end = bounds[static_cast<size_t>(rank) + 1];
      const at::Tensor mine = at::empty({end - first}, dtype);
      comm.reduce_scatter(mine, values(rank, 10007, dtype), bounds).wait();
      EXPECT_TRUE(mine.equal(tree_over_ranks(ranks, 10007, dtype).slice(0, first, end)));
    }

  const auto odd_or_even = comm.split(rank % 2);
  EXPECT_EQ(odd_or_even->rank(), rank / 2);
  EXPECT_EQ(odd_or_even->size(), (ranks + 1 - rank % 2) / 2);
}

}  // namespace retort::comm
