#include "plan/backward_pass.h"

#include <gtest/gtest.h>

#include <set>

#include "plan/owned_rows.h"
#include "tests/plan/shapes.h"

namespace retort::plan {
namespace {

BackwardPass pass_of(bool tied) {
  models::DecoderSpec spec = gpt(3, 32, 2, 100, 16);
  spec.tie_embeddings = tied;
  return backward_pass(*shape(spec), {});
}

}  // namespace

TEST(BackwardPass, GoesFromTheHeadToTheEmbeddingAndMakesAllGradients) {
  for (const bool tied : {false, true}) {
    const BackwardPass pass = pass_of(tied);
    ASSERT_EQ(pass.stages.size(), 2 + 2 * 3U);
    EXPECT_EQ(pass.stages.front().group, 4);
    EXPECT_EQ(pass.stages.back().group, 0);
    std::set<size_t> made;
    size_t twice = 0;
    for (size_t s = 0; s < pass.stages.size(); ++s) {
      EXPECT_LE(pass.stages[s].group, pass.stages[s > 0 ? s - 1 : 0].group);
      for (const size_t i : pass.stages[s].makes) twice += made.insert(i).second ? 0 : 1;
    }
    EXPECT_EQ(made.size(), pass.gradients.size());
    EXPECT_EQ(twice, tied ? 1 : 0) << "the table, at either end";
  }
}

// Whole tensors are shared out, in order, about evenly.
TEST(OwnedRows, AreARunOfAllElements) {
  for (const int64_t ranks : {1, 2, 3, 8}) {
    const std::vector<Rows> tensors = {
        {600, {0, 20, 2}}, {8, {0, 8, 8}}, {4000, {0, 100, 5}}, {100, {0, 100, 5}, true}};
    const OwnedRows owned(tensors, ranks);
    EXPECT_EQ(owned.total(), 4608);
    for (size_t i = 0; i < tensors.size(); ++i) {
      int64_t next = 0;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const kernels::RowBlocks rows = owned.of(i, rank);
        EXPECT_EQ(rows.begin, next);
        next = rows.end;
        if (tensors[i].scale) continue;
        if (rows.begin < rows.end) {
          EXPECT_GE(rank, owned.first_owner(i));
          EXPECT_LE(rank, owned.last_owner(i));
        }
      }
      EXPECT_EQ(next, tensors[i].blocks.end);
    }
    for (int64_t rank = 0; rank < ranks; ++rank) {
      int64_t mine = 0;
      for (size_t i = 0; i < 3; ++i) mine += owned.elements(i, rank);
      EXPECT_NEAR(static_cast<double>(mine), 4608.0 / static_cast<double>(ranks), 2 * 200) << "to a block";
    }
  }
}

}  // namespace retort::plan
