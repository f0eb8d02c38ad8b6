#include "distill/divided_teacher.h"

#include <gtest/gtest.h>

#include "comm/together.h"
#include "tests/distill/tiny_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

data::Batch batch_of(int64_t number) {
  const at::Tensor ids_BT = (at::arange(2 * 13).view({2, 13}) * 5 + number).remainder(32);
  return {ids_BT.narrow(1, 0, 12).contiguous(), ids_BT.narrow(1, 1, 12).contiguous(), {}, {}, {}};
}

}  // namespace

// Every rank asks about a batch of its own, as often as the others.
TEST(DividedTeacher, SaysWhatALiveOneSays) {
  comm::run_thread_ranks(3, [](comm::Comm& comm) {
    const testing::Threads one_thread(1);
    const auto whole = tiny_model(4);
    auto model = std::make_shared<train::DividedModel>(
        std::make_unique<models::Decoder>(whole->spec(), at::kMeta), at::kFloat, comm, 1);
    model->take([&](const models::Parameter& p) { return whole->parameters().at(p.name).master; });
    const auto divided = make_divided_teacher(model), live = make_live_teacher(tiny_model(4));
    EXPECT_EQ(divided->vocabulary(), live->vocabulary());
    EXPECT_EQ(divided->layers().count, live->layers().count);
    for (int64_t pass = 0; pass < 3; ++pass) {
      const data::Batch batch = batch_of(3 * pass + comm.rank());
      const TeacherSignal a = divided->signal(batch, {1}), b = live->signal(batch, {1});
      EXPECT_TRUE(testing::same_bits(a.rows.heads.at(0).hidden_ND, b.rows.heads.at(0).hidden_ND));
      EXPECT_TRUE(testing::same_bits(a.rows.heads.at(0).head.weight_VD, b.rows.heads.at(0).head.weight_VD));
      EXPECT_TRUE(testing::same_bits(a.taps.at(0).h_BTD, b.taps.at(0).h_BTD));
    }
  });
}

// One whose source is in some ranks' batches alone is asked by all, and has a part in theirs.
TEST(DividedTeacher, MayBeOneOfSeveral) {
  comm::run_thread_ranks(2, [](comm::Comm& comm) {
    const testing::Threads one_thread(1);
    const auto whole = tiny_model(4);
    auto model = std::make_shared<train::DividedModel>(
        std::make_unique<models::Decoder>(whole->spec(), at::kMeta), at::kFloat, comm, 1);
    model->take([&](const models::Parameter& p) { return whole->parameters().at(p.name).master; });
    std::vector<Share> shares;
    shares.push_back({make_divided_teacher(model), {0.5, 0.0}});
    shares.push_back({make_live_teacher(tiny_model(5)), {1.0}});
    const auto mixture = make_mixed_teacher(std::move(shares));
    const auto live = make_live_teacher(tiny_model(4));
    for (int64_t pass = 0; pass < 3; ++pass) {
      data::Batch batch = batch_of(pass);
      const int64_t source = (pass + comm.rank()) % 2;
      batch.source_B = at::full({2}, source, at::kLong);
      const TeacherSignal signal = mixture->signal(batch, {});
      ASSERT_EQ(signal.rows.heads.size(), source == 0 ? 2 : 1);
      if (source == 0) {
        EXPECT_TRUE(testing::same_bits(signal.rows.heads.front().hidden_ND,
                                       live->signal(batch, {}).rows.heads.at(0).hidden_ND));
      }
    }
  });
}

// So what is kept of a reference serves whether it is divided or not.
TEST(DividedTeacher, AReferenceHasOneIdentity) {
  const auto whole = tiny_model(4);
  const models::Decoder shape(whole->spec(), at::kMeta);
  const auto values = [&](const models::Parameter& p) { return whole->parameters().at(p.name).master; };
  EXPECT_EQ(reference_identity(shape.parameters(), values, at::kFloat, {}, {}),
            reference_identity(whole->parameters(), at::kFloat, {}, {}));
  EXPECT_NE(reference_identity(shape.parameters(), values, at::kBFloat16, {}, {}),
            reference_identity(whole->parameters(), at::kFloat, {}, {}));
}

}  // namespace retort::distill
