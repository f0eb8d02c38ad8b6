#include "distill/teacher.h"

#include "core/error.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/distill/tiny_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using testing::same_bits;

data::Batch batch_of(int64_t rows, int64_t tokens) {
  data::Batch batch;
  batch.tokens_BT = (at::arange(rows * tokens) * 7 % 31).view({rows, tokens});
  batch.labels_BT = (batch.tokens_BT + 1) % 32;
  return batch;
}

TEST(LiveTeacher, GivesTheModelsLastHiddenStateAndHead) {
  std::unique_ptr<models::Decoder> same = tiny_model(1);
  const std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(1));
  const data::Batch batch = batch_of(3, 8);
  const TeacherSignal signal = teacher->signal(batch, {});
  EXPECT_EQ(signal.rows.heads.at(0).hidden_ND.sizes(), at::IntArrayRef({24, 16}));
  EXPECT_TRUE(same_bits(signal.rows.heads.at(0).hidden_ND, same->hidden({batch.tokens_BT}).flatten(0, 1)));
  EXPECT_TRUE(same_bits(signal.rows.heads.at(0).head.weight_VD, same->head().weight_VD));
  EXPECT_EQ(teacher->vocabulary(), 32);
}

// Scales that are learned are NaN until the first step on their grid, which a checkpoint may be before.
TEST(LiveTeacher, MayHaveLearnedScalesWithoutAValue) {
  std::unique_ptr<models::Decoder> model = tiny_model(1);
  const at::NoGradGuard no_grad;
  models::Parameter& scale =
      model->parameters().add("layers.0.attn.q.weight_scale", {16, 1}, models::Role::kScale);
  scale.master.fill_(NAN);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  EXPECT_NO_THROW(make_live_teacher(std::move(model)));
  std::unique_ptr<models::Decoder> broken = tiny_model(1);
  broken->parameters().at("layers.0.attn.q.weight").master[0][0] = NAN;
  EXPECT_THROW(make_live_teacher(std::move(broken)), NonFiniteError);
}

TEST(LiveTeacher, SignalsCarryNoGradient) {
  const std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(1));
  const TeacherSignal signal = teacher->signal(batch_of(2, 8), {});
  EXPECT_FALSE(signal.rows.heads.at(0).hidden_ND.requires_grad());
  EXPECT_FALSE(signal.rows.heads.at(0).head.weight_VD.requires_grad());
}

// 40 tokens in windows of 16, 16 and 8.
TEST(LiveTeacher, ReadsLongRowsInWindowsOfItsContext) {
  std::unique_ptr<models::Decoder> same = tiny_model(1);
  const std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(1));
  data::Batch batch = batch_of(2, 40);
  const auto windows = [&](const std::function<at::Tensor(int64_t, int64_t)>& read) {
    return at::cat({read(0, 16), read(16, 16), read(32, 8)}, 1).flatten(0, 1);
  };
  const auto cut = [](const at::Tensor& x, int64_t begin, int64_t tokens) {
    return x.narrow(1, begin, tokens).contiguous();
  };
  EXPECT_TRUE(
      same_bits(teacher->signal(batch, {}).rows.heads.at(0).hidden_ND,
                windows([&](int64_t at, int64_t n) { return same->hidden({cut(batch.tokens_BT, at, n)}); })));

  // Documents from token 5 and 20 on: positions in a window count from its start or the document's.
  const at::Tensor place_T = at::arange(40);
  batch.document_BT = (place_T.ge(5).to(at::kLong) + place_T.ge(20)).expand({2, 40}).contiguous();
  batch.positions_BT = (place_T - at::tensor({0, 5, 20}, at::kLong).index_select(0, batch.document_BT[0]))
                           .expand({2, 40})
                           .contiguous();
  const at::Tensor positions_BT =
      at::cat({batch.positions_BT[0].narrow(0, 0, 16), at::arange(4), at::arange(12), at::arange(8)})
          .expand({2, 40})
          .contiguous();
  EXPECT_TRUE(
      same_bits(teacher->signal(batch, {}).rows.heads.at(0).hidden_ND, windows([&](int64_t at, int64_t n) {
                  return same->hidden(
                      {cut(batch.tokens_BT, at, n), cut(positions_BT, at, n), cut(batch.document_BT, at, n)});
                })));
}

TEST(LiveTeacher, RefusesWeightsThatAreNotFinite) {
  std::unique_ptr<models::Decoder> sick = tiny_model(1);
  {
    const at::NoGradGuard no_grad;
    sick->parameters().at("layers.1.ffn.up.weight").master[21][3] = NAN;
  }
  try {
    make_live_teacher(std::move(sick));
    FAIL();
  } catch (const NonFiniteError& error) {
    EXPECT_STREQ(error.what(),
                 "[distill] the teacher's weights must be finite, layers.1.ffn.up.weight is not");
  }
}

// In bf16 the f32 masters go; the signal is that of the working weights.
TEST(LiveTeacher, KeepsNoMasters) {
  std::unique_ptr<models::Decoder> model = tiny_model(1);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kBFloat16);
  models::Decoder& seen = *model;
  const std::unique_ptr<Teacher> teacher = make_live_teacher(std::move(model));
  for (const models::Parameter& p : seen.parameters().unique())
    EXPECT_EQ(p.master.const_data_ptr(), p.working.const_data_ptr()) << p.name;
  EXPECT_EQ(teacher->signal(batch_of(1, 8), {}).rows.heads.at(0).head.weight_VD.scalar_type(), at::kBFloat16);
}

// ---- Several

TEST(MixedTeacher, WeighsEachTeacherBySourceAndRunsNoneForNothing) {
  std::vector<Share> shares;
  shares.push_back({make_live_teacher(tiny_model(1)), {0.75, 0.0, 0.25}});
  shares.push_back({make_live_teacher(tiny_model(2)), {2.0}});
  const std::unique_ptr<Teacher> teacher = make_mixed_teacher(std::move(shares));
  EXPECT_EQ(teacher->vocabulary(), 32);
  data::Batch batch = batch_of(3, 2);
  batch.source_B = at::tensor({2, 0, 1}, at::kLong);
  const TeacherSignal both = teacher->signal(batch, {});
  ASSERT_EQ(both.rows.heads.size(), 2u);
  EXPECT_TRUE(
      at::equal(both.rows.heads[0].weight_N, at::tensor({.25f, .25f, .75f, .75f, 0.f, 0.f}, at::kFloat)));
  EXPECT_TRUE(at::equal(both.rows.heads[1].weight_N, at::full({6}, 2.0f)));
  const at::NoGradGuard no_grad;  // few rows are multiplied otherwise then
  EXPECT_TRUE(
      same_bits(both.rows.heads[1].hidden_ND, tiny_model(2)->hidden({batch.tokens_BT}).flatten(0, 1)));
  batch.source_B.fill_(1);
  const TeacherSignal one = teacher->signal(batch, {});
  ASSERT_EQ(one.rows.heads.size(), 1u);
  EXPECT_TRUE(same_bits(one.rows.heads[0].hidden_ND, both.rows.heads[1].hidden_ND));
}

// ---- Cached

namespace {

// 12 tokens, of each its own place plus `shift` twice and id 29 once, in blocks of 5.
std::shared_ptr<const TeacherCache> cache_of(const Path& directory, uint32_t shift,
                                             double temperature = 2.0) {
  const CacheFacts facts{.kind = "sampled",
                         .size = 3,
                         .temperature = temperature,
                         .vocabulary = 30,
                         .tokens = 12,
                         .block_tokens = 5,
                         .window = 5};
  for (int64_t block = 0; block < facts.blocks(); ++block) {
    BlockLabels labels;
    for (int64_t token = 0; token < facts.tokens_of(block); ++token) {
      const auto place = static_cast<uint32_t>(block * 5 + token) + shift;
      labels.labels.push_back(2);
      labels.ids.insert(labels.ids.end(), {place, 29});
      labels.values.insert(labels.values.end(), {2, 1});
    }
    write_block(local_files(), directory, facts, block, labels);
  }
  return std::make_shared<const TeacherCache>(directory);
}

}  // namespace

TEST(CachedTeacher, GivesLabelsByPlaceInAnyBatch) {
  const testing::TemporaryDirectory directory;
  const std::unique_ptr<Teacher> teacher = make_cached_teacher({cache_of(directory.path(), 0)});
  EXPECT_EQ(teacher->kind().name, "sampled");
  EXPECT_EQ(teacher->kind().size, 3);
  EXPECT_EQ(teacher->kind().temperature, 2.0);
  EXPECT_EQ(teacher->vocabulary(), 30);
  data::Batch batch = batch_of(2, 3);
  batch.corpus_BT = at::tensor({9, 10, 11, 3, 4, 5}, at::kLong).view({2, 3});
  const TeacherSignal signal = teacher->signal(batch, {});
  EXPECT_TRUE(signal.rows.heads.empty());
  EXPECT_TRUE(at::equal(signal.rows.labels.ids_NK.select(1, 0), batch.corpus_BT.flatten()));
  EXPECT_TRUE(at::equal(signal.rows.labels.ids_NK.select(1, 1), at::full({6}, 29, at::kLong)));
  EXPECT_TRUE(at::allclose(signal.rows.labels.weights_NK, at::tensor({2.f / 3, 1.f / 3}).expand({6, 2})));

  std::filesystem::create_directories(directory / "other");
  const auto other = cache_of(directory / "other", 12);
  batch.source_B = at::tensor({0, 1}, at::kLong);
  const TeacherSignal both = make_cached_teacher({cache_of(directory.path(), 0), other})->signal(batch, {});
  EXPECT_TRUE(
      at::equal(both.rows.labels.ids_NK.select(1, 0), at::tensor({9, 10, 11, 15, 16, 17}, at::kLong)));
  EXPECT_TRUE(at::equal(both.rows.labels.weights_NK, signal.rows.labels.weights_NK));
  EXPECT_THROW(make_cached_teacher({cache_of(directory.path(), 0, 1.0), other}), ConfigError);

  batch.corpus_BT[1][2] = 12;
  EXPECT_THROW(teacher->signal(batch, {}), DataError);
  batch.corpus_BT = at::Tensor();
  EXPECT_THROW(teacher->signal(batch, {}), InternalError);
}

}  // namespace
}  // namespace retort::distill
