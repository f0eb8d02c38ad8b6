#include "comm/ordered_reduce.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

struct AddTensors {
  at::Tensor operator()(at::Tensor left, at::Tensor right) const { return left + right; }
};

at::Tensor reduced(const std::vector<at::Tensor>& ranks, Reduce reduce) {
  std::vector<ReduceInput> inputs;
  for (const at::Tensor& t : ranks) inputs.push_back({static_cast<const std::byte*>(t.const_data_ptr())});
  at::Tensor out = at::empty_like(ranks[0]);
  ordered_reduce(out.scalar_type(), reduce, inputs, static_cast<std::byte*>(out.mutable_data_ptr()),
                 out.numel());
  return out;
}

std::vector<at::Tensor> random_ranks(int ranks, int64_t count, at::ScalarType dtype) {
  std::vector<at::Tensor> out;
  for (int r = 0; r < ranks; ++r) {
    at::Tensor t = at::empty({count}, at::kFloat);
    Random(11, "reduce", r).fill_normal(t, 100.0);
    out.push_back(t.to(dtype));
  }
  return out;
}

}  // namespace

TEST(OrderedReduce, SumsAsTheTreeOverTheRanks) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf, at::kLong, at::kInt})
    for (int ranks : {1, 2, 3, 4, 5, 8})
      for (int64_t count : {0, 1, 1023, 1024, 2500}) {
        const auto inputs = random_ranks(ranks, count, dtype);
        const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
        TreeSum<at::Tensor, AddTensors> tree;
        for (const at::Tensor& t : inputs) tree.push(narrow ? t.to(at::kFloat) : t);
        EXPECT_TRUE(testing::same_bits(reduced(inputs, Reduce::kSum), tree.finish().to(dtype)))
            << c10::toString(dtype) << " " << ranks << " ranks, " << count;
      }
}

TEST(OrderedReduce, TakesTheLargestAndTheSmallest) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kLong}) {
    const auto inputs = random_ranks(5, 1500, dtype);
    const at::Tensor all = at::stack(inputs);
    EXPECT_TRUE(testing::same_bits(reduced(inputs, Reduce::kMax), all.amax(0)));
    EXPECT_TRUE(testing::same_bits(reduced(inputs, Reduce::kMin), all.amin(0)));
  }
}

TEST(OrderedReduce, NoRankCanHideItsNaN) {
  for (int bad = 0; bad < 4; ++bad) {
    std::vector<at::Tensor> inputs = random_ranks(4, 3, at::kFloat);
    inputs[bad][1] = std::numeric_limits<float>::quiet_NaN();
    for (Reduce reduce : {Reduce::kSum, Reduce::kMax, Reduce::kMin}) {
      const at::Tensor out = reduced(inputs, reduce);
      EXPECT_TRUE(std::isnan(out[1].item<float>())) << "rank " << bad;
      EXPECT_FALSE(std::isnan(out[0].item<float>()));
    }
  }
}

TEST(OrderedReduce, WritesOverAnInput) {
  std::vector<at::Tensor> ranks = random_ranks(3, 2000, at::kFloat);
  const at::Tensor expected = reduced(ranks, Reduce::kSum);
  std::vector<ReduceInput> inputs;
  for (const at::Tensor& t : ranks) inputs.push_back({static_cast<const std::byte*>(t.const_data_ptr())});
  ordered_reduce(at::kFloat, Reduce::kSum, inputs, static_cast<std::byte*>(ranks[1].mutable_data_ptr()),
                 2000);
  EXPECT_TRUE(testing::same_bits(ranks[1], expected));
}

TEST(OrderedReduce, NamesTheTypesThatItTakes) {
  EXPECT_NO_THROW(check_reducible(at::kBFloat16));
  EXPECT_THAT([] { check_reducible(at::kBool); },
              ::testing::ThrowsMessage<ShapeError>(::testing::HasSubstr("got Bool")));
}

}  // namespace retort::comm
