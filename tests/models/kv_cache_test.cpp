#include "models/kv_cache.h"

#include "core/error.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

// A prompt in one call, then pieces of 1, 3 and 1 tokens, against all of it at once.
void expect_same_as_full(const DecoderSpec& spec) {
  const auto model = testing::random_model(spec);
  const at::Tensor tokens = testing::random_tokens(2, 12, spec.vocabulary);
  const at::NoGradGuard no_grad;
  const at::Tensor full = model->hidden({tokens, {}, {}});
  KvCache cache(spec.layers, 2, spec.kv_heads, spec.head_dim, 12);
  std::vector<at::Tensor> parts;
  for (const int64_t piece : {7, 1, 3, 1})
    parts.push_back(model->hidden({tokens.narrow(1, cache.length(), piece), {}, {}}, &cache));
  EXPECT_EQ(cache.length(), 12);
  EXPECT_LT(testing::relative_error(at::cat(parts, 1), full), 1e-5);
  EXPECT_THROW(model->hidden({tokens.narrow(1, 0, 1), {}, {}}, &cache), ShapeError);  // beyond its capacity
  EXPECT_EQ(cache.length(), 12);
}

TEST(KvCache, ContinuesASequence) {
  expect_same_as_full(testing::tiny_llama());
  expect_same_as_full(testing::tiny_gpt2());
  expect_same_as_full(testing::tiny_bitnet());
}

// Layers that run one block keep keys of their own.
TEST(KvCache, IsPerExecutedLayer) {
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 4;
  spec.repeat = 2;
  expect_same_as_full(spec);
}

// Prompts of 9, 4 and 6 tokens padded on the left, then single tokens, and a row that leaves: each as alone.
TEST(KvCache, RowsMayBeginBehindPadding) {
  DecoderSpec windowed = testing::tiny_llama();
  windowed.family = "phi3";
  windowed.window = 5;
  for (const DecoderSpec& spec :
       {testing::tiny_llama(), testing::tiny_gpt2(), testing::tiny_bitnet(), windowed}) {
    const auto model = testing::random_model(spec);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = testing::random_tokens(3, 14, spec.vocabulary);
    const std::vector<int64_t> starts = {0, 5, 3};
    KvCache cache(spec.layers, 3, spec.kv_heads, spec.head_dim, 14);
    cache.start_B = at::tensor(starts, at::kLong);
    const auto expect_alone = [&](const at::Tensor& h_BTD, const std::vector<int64_t>& rows) {
      for (size_t b = 0; b < rows.size(); ++b) {
        const int64_t start = starts[static_cast<size_t>(rows[b])], end = cache.length();
        const at::Tensor alone =
            model->hidden({tokens.narrow(0, rows[b], 1).narrow(1, start, end - start), {}, {}});
        EXPECT_LT(testing::relative_error(h_BTD[static_cast<int64_t>(b)][-1], alone[0][-1]), 1e-5)
            << spec.family << " row " << rows[b] << " of " << end;
      }
    };
    expect_alone(model->hidden({tokens.narrow(1, 0, 9), {}, {}}, &cache), {0, 1, 2});
    expect_alone(model->hidden({tokens.narrow(1, 9, 1), {}, {}}, &cache), {0, 1, 2});
    cache.keep(at::tensor({2, 1}, at::kLong));
    const at::Tensor rest = tokens.index_select(0, at::tensor({2, 1}, at::kLong));
    expect_alone(model->hidden({rest.narrow(1, 10, 1), {}, {}}, &cache), {2, 1});
    expect_alone(model->hidden({rest.narrow(1, 11, 3), {}, {}}, &cache), {2, 1});
  }
}

TEST(KvCache, FollowsTheWorkingDtype) {
  const auto model = testing::random_model(testing::tiny_llama());
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kBFloat16);
  const at::Tensor tokens = testing::random_tokens(1, 4, 96);
  KvCache cache(2, 1, 2, 8, 4);
  const at::Tensor h = model->hidden({tokens, {}, {}}, &cache);
  EXPECT_EQ(h.scalar_type(), at::kFloat);
  const auto [keys, values] =
      cache.append(0, at::empty({1, 0, 2, 8}, at::kBFloat16), at::empty({1, 0, 2, 8}, at::kBFloat16));
  EXPECT_EQ(keys.scalar_type(), at::kBFloat16);
  EXPECT_FALSE(keys.requires_grad());
}

TEST(KvCache, StopsAtTheContext) {
  const DecoderSpec spec = testing::tiny_gpt2();
  const auto model = testing::random_model(spec);
  KvCache cache(spec.layers, 1, spec.kv_heads, spec.head_dim, 100);
  model->hidden({testing::random_tokens(1, 64, 96), {}, {}}, &cache);
  EXPECT_THROW(model->hidden({testing::random_tokens(1, 1, 96), {}, {}}, &cache), DataError);
}

TEST(KvCache, RefusesOtherShapes) {
  KvCache cache(1, 2, 2, 8, 4);
  EXPECT_THROW(cache.append(0, at::empty({1, 1, 2, 8}), at::empty({1, 1, 2, 8})), ShapeError);
  EXPECT_THROW(cache.append(0, at::empty({2, 1, 2, 8}), at::empty({2, 2, 2, 8})), ShapeError);
}

}  // namespace
}  // namespace retort::models
