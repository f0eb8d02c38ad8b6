#include "distill/labels.h"

#include "core/error.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

TEST(LiveLabels, DrawsDependOnSeedAndPlaceAlone) {
  const at::Tensor p = at::softmax(at::arange(60).view({3, 20}).remainder(7).to(at::kFloat), 1);
  const at::Tensor places = at::tensor({5, 900, 6}, at::kLong);
  const kernels::SparseLabels all = draw_labels(p, 50, 3, places);
  const kernels::SparseLabels one = draw_labels(p.narrow(0, 1, 1), 50, 3, places.narrow(0, 1, 1));
  EXPECT_TRUE(at::equal(all.ids_NK[1], one.ids_NK[0]));
  EXPECT_FALSE(at::equal(all.ids_NK[0], draw_labels(p, 50, 3, places + 1).ids_NK[0]));
  EXPECT_TRUE(at::allclose(all.weights_NK.sum(1), at::ones({3})));
  EXPECT_FALSE(at::equal(all.ids_NK, draw_labels(p, 50, 4, places).ids_NK));
  EXPECT_FALSE(all.rest_N.defined());
  EXPECT_THROW(draw_labels(p, 50, 3, {}), ConfigError);
}

// At the ends of the unit interval too.
TEST(LiveLabels, IdsOfNoProbabilityAreNeverDrawn) {
  at::Tensor p = at::zeros({64, 40});
  p.select(1, 7) += 0.5, p.select(1, 31) += 0.5;
  const at::Tensor ids = draw_labels(p, 200, 3, at::arange(64)).ids_NK;
  EXPECT_TRUE((ids == 7).logical_or(ids == 31).all().item<bool>());
  EXPECT_NEAR((ids == 7).to(at::kDouble).mean().item<double>(), 0.5, 5 * 0.5 / std::sqrt(64 * 200.0));
}

TEST(LiveLabels, TheTopIsTheLikeliestAndTheRest) {
  kernels::LogitRows rows{{}, at::tensor({.1f, .4f, .2f, .3f}).log().view({1, 4}), {}};
  const kernels::SparseLabels top = top_labels(rows, 2, 1.0);
  EXPECT_TRUE(at::equal(top.ids_NK, at::tensor({1, 3}, at::kLong).view({1, 2})));
  EXPECT_TRUE(at::allclose(top.weights_NK, at::tensor({.4f, .3f}).view({1, 2})));
  EXPECT_NEAR(top.rest_N.item<double>(), .3, 1e-6);
  EXPECT_NEAR(top_labels(rows, 0, 1.0).rest_N.item<double>(), 0.0, 1e-6) << "64 of 4 are all";
  // Softened by 2: the square roots, normalised.
  const double sum = std::sqrt(.1) + std::sqrt(.4) + std::sqrt(.2) + std::sqrt(.3);
  EXPECT_NEAR(top_labels(rows, 2, 2.0).weights_NK[0][0].item<double>(), std::sqrt(.4) / sum, 1e-6);
}

TEST(LiveLabels, ACachesTopIsCutToFewer) {
  kernels::LogitRows rows;
  rows.sparse = {at::tensor({9, 4, 2}, at::kLong).view({1, 3}), at::tensor({.5f, .2f, .1f}).view({1, 3}),
                 at::tensor({.2f})};
  const kernels::SparseLabels two = top_labels(rows, 2, 1.0);
  EXPECT_TRUE(at::equal(two.ids_NK, at::tensor({9, 4}, at::kLong).view({1, 2})));
  EXPECT_NEAR(two.rest_N.item<double>(), .3, 1e-6);
  EXPECT_TRUE(at::equal(top_labels(rows, 0, 1.0).ids_NK, rows.sparse.ids_NK));
  rows.sparse.rest_N = at::Tensor();
  EXPECT_THROW(top_labels(rows, 2, 1.0), ShapeError) << "draws have no top";
}

TEST(LiveLabels, NeedATeacher) { EXPECT_THROW(softened({}, 1.0), ShapeError); }

}  // namespace
}  // namespace retort::distill
