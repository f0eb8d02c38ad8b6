#include "models/placement.h"

#include <gtest/gtest.h>

namespace retort::models {
namespace {

int64_t elements(at::IntArrayRef shape, RowBlock block) {
  return (block.end - block.begin) * c10::multiply_integers(shape.slice(1));
}

TEST(Placement, BlocksAreTheFewestWholeRowsOfEnoughElements) {
  const std::vector<std::vector<int64_t>> shapes = {{1},        {32768},      {32769},   {100000},
                                                    {300, 131}, {512, 64},    {513, 64}, {3, 40000},
                                                    {1000, 1},  {7, 100, 100}};
  for (const std::vector<int64_t>& shape : shapes) {
    const RowBlocks blocks = cut_into_blocks(shape);
    int64_t next = 0;
    for (int64_t b = 0; b < blocks.count(); ++b) {
      const RowBlock block = blocks[b];
      EXPECT_EQ(block.begin, next);
      EXPECT_LT(block.begin, block.end);
      next = block.end;
      if (block.end == shape[0]) continue;  // what is left may be less
      EXPECT_GE(elements(shape, block), 1 << 15);
      EXPECT_LT(elements(shape, {block.begin, block.end - 1}), 1 << 15) << "a row more than needed";
    }
    EXPECT_EQ(next, shape[0]);
  }
  EXPECT_EQ(cut_into_blocks({300, 131}).count(), 2);
  EXPECT_EQ(cut_into_blocks({300, 131})[0], (RowBlock{0, 251}));
  EXPECT_EQ(cut_into_blocks({300, 131})[1], (RowBlock{251, 300}));
  EXPECT_EQ(cut_into_blocks({3, 40000}).count(), 3);
}

TEST(Placement, AWholeParameterIsOwnedAndUsedWhole) {
  const at::Tensor x = at::randn({600, 256});
  Placement placement = Placement::whole(x.sizes(), at::kMeta);
  EXPECT_EQ(placement.device, at::kMeta);
  EXPECT_EQ(placement.owned, cut_into_blocks(x.sizes()));
  EXPECT_TRUE(placement.owns_all(x.sizes()));
  EXPECT_TRUE(at::equal(placement.used.of(x), x));
  placement.owned.end = placement.owned[0].end;
  EXPECT_FALSE(placement.owns_all(x.sizes()));
}

TEST(Placement, APartIsASliceOfOneDimension) {
  const at::Tensor x = at::arange(12).view({3, 4});
  EXPECT_TRUE(at::equal(Part{0, 1, 3}.of(x), x.slice(0, 1, 3)));
  EXPECT_TRUE(at::equal(Part{1, 0, 2}.of(x), x.slice(1, 0, 2)));
}

}  // namespace
}  // namespace retort::models
