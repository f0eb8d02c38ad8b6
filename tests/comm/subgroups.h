// What any back end does with four ranks as two rows and two columns, whose collectives differ in number and size.
#pragma once

#include <gtest/gtest.h>

#include "comm/comm.h"

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

}  // namespace retort::comm
