#include "models/bytes/patches.h"

#include "core/error.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

at::Tensor bytes(std::string_view text) {
  std::vector<int64_t> ids(text.size());
  for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

std::vector<int64_t> list(const at::Tensor& x) {
  const at::Tensor flat = x.flatten().contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

TEST(Patches, EndWithAByteThatIsNoWordUnlessTheOneBeforeWasSuchToo) {
  // "é" is a lead byte, which ends a patch, and a continuation, which begins the next one.
  const Patches p = find_patches(bytes("a bc, d\xC3\xA9"), {}, {});
  EXPECT_EQ(list(p.last_BP), (std::vector<int64_t>{1, 4, 7}));
  EXPECT_EQ(list(p.ended_BT), (std::vector<int64_t>{0, 1, 0, 0, 2, 0, 0, 3, 0}));
  EXPECT_EQ(list(p.done_BT), (std::vector<int64_t>{0, 1, 1, 1, 2, 2, 2, 3, 3}));
  EXPECT_EQ(list(p.slot_BT), (std::vector<int64_t>{1, 0, 1, 2, 0, 1, 2, 0, 1}));
  EXPECT_FALSE(p.tokens_BPS.defined());
}

TEST(Patches, TheFirstOfADocumentCountsForSpaceByte) {
  const at::Tensor documents = at::tensor({0, 0, 0, 1, 1}, at::kLong).unsqueeze(0);
  const Patches p = find_patches(bytes("ab cd"), documents, {.first = true});
  EXPECT_EQ(list(p.last_BP), (std::vector<int64_t>{0, 2, 3}));
  EXPECT_EQ(list(p.document_BP), (std::vector<int64_t>{0, 0, 1}));
}

TEST(Patches, OfADocumentThatEndsAreNotThoseOfTheNext) {
  const at::Tensor documents = at::tensor({0, 0, 0, 1, 1, 1}, at::kLong).unsqueeze(0);
  const Patches p = find_patches(bytes("a bc d"), documents, {});
  EXPECT_EQ(list(p.last_BP), (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(list(p.done_BT), (std::vector<int64_t>{0, 1, 1, 0, 2, 2}));
  EXPECT_EQ(list(p.next_BT), (std::vector<int64_t>{1, 2, 2, 3, 4, 4}));
}

TEST(Patches, HoldAtMostTheLongest) {
  const Patches p = find_patches(bytes("abcdefg h"), {}, {.longest = 3});
  EXPECT_EQ(list(p.last_BP), (std::vector<int64_t>{2, 5, 7}));
  EXPECT_EQ(list(p.tokens_BPS[0][2]), (std::vector<int64_t>{'g', ' ', kStopToken}));
  EXPECT_EQ(p.slot_BT.max().item<int64_t>(), 2);
}

TEST(Patches, StopsAloneEndThemWhereTheVocabularyHasThem) {
  const at::Tensor tokens = at::tensor({1, 32, 256, 7, 7, 7, 7, 256}, at::kLong).unsqueeze(0);
  const Patches p = find_patches(tokens, {}, {.longest = 3, .stops = true});
  EXPECT_EQ(list(p.last_BP), (std::vector<int64_t>{2, 5, 7}));
  EXPECT_EQ(list(p.tokens_BPS[0][2]), (std::vector<int64_t>{7, kStopToken, kStopToken}));
}

TEST(Patches, RowsWithFewerArePadded) {
  const Patches p = find_patches(at::cat({bytes("a b c"), bytes("abcde")}), {}, {});
  EXPECT_EQ(list(p.last_BP), (std::vector<int64_t>{1, 3, 0, 0}));
  EXPECT_EQ(list(p.document_BP), (std::vector<int64_t>{0, 0, -1, -1}));
  const Patches none = find_patches(bytes("abc"), {}, {});
  EXPECT_EQ(none.last_BP.sizes(), at::IntArrayRef({1, 1}));
  EXPECT_EQ(none.done_BT.max().item<int64_t>(), 0);
  EXPECT_THROW(find_patches(bytes("abc"), at::zeros({1, 2}, at::kLong), {}), ShapeError);
}

TEST(Patches, TakesRowsAndTheirGradients) {
  const at::Tensor x = at::arange(6, at::kFloat).view({1, 3, 2}).requires_grad_();
  const at::Tensor rows = at::tensor({0, 3, 3}, at::kLong).unsqueeze(0);
  const at::Tensor y = take_rows(x, rows, /*zero=*/true);
  EXPECT_TRUE(at::equal(y, at::tensor({0.f, 0.f, 4.f, 5.f, 4.f, 5.f}).view({1, 3, 2})));
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad().flatten(), at::tensor({0.f, 0.f, 0.f, 0.f, 2.f, 2.f})));
  EXPECT_TRUE(at::equal(take_rows(x, rows.clamp_max(2), false)[0][0], x[0][0]));
}

}  // namespace
}  // namespace retort::models
