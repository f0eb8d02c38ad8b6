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
