#include "eval/passes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "tests/eval/models.h"

namespace retort::eval {
namespace {

using retort::testing::make_decoder;
using retort::testing::make_patch_model;

std::vector<int32_t> tokens(int from, int count) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), from);
  return out;
}

// Documents of a context and four choices.
std::vector<TokenRequest> choices(const std::vector<int>& lengths) {
  std::vector<TokenRequest> out;
  for (size_t i = 0; i < lengths.size(); ++i)
    for (int k = 0; k < 4; ++k)
      out.push_back({tokens(static_cast<int>(i), lengths[i]), tokens(40 * k, 1 + k)});
  return out;
}

// What goes through the model, padding included.
int64_t tokens_read(const std::vector<Pass>& passes) {
  int64_t sum = 0;
  for (const Pass& pass : passes) {
    sum += std::ssize(pass.contexts) * pass.places;
    for (const PassPart& part : pass.parts) sum += std::ssize(part.rows) * part.width;
  }
  return sum;
}

TEST(Passes, ReadWhatChoicesHaveInCommonOnce) {
  const auto model = make_decoder(256, 64);
  const std::vector<int> lengths = {33, 27, 30, 25, 33, 17, 20, 41, 40, 38};
  const std::vector<TokenRequest> requests = choices(lengths);
  const std::vector<RequestRow> rows = rows_of(requests);
  const std::vector<Pass> passes = passes_of(rows, *model, 16);
  std::set<size_t> asked;
  for (const Pass& pass : passes)
    for (const PassPart& part : pass.parts)
      for (size_t i = 0; i < part.rows.size(); ++i) {
        EXPECT_EQ(*pass.contexts.at(static_cast<size_t>(part.context_of.at(i))), part.rows[i]->context);
        for (const size_t request : part.rows[i]->requests) EXPECT_TRUE(asked.insert(request).second);
      }
  EXPECT_EQ(asked.size(), requests.size());
  EXPECT_EQ(passes.size(), 4u);  // of 16, 24, 32 and 40 places
  int64_t whole = 0;
  for (const TokenRequest& one : requests)
    whole += std::ssize(one.context) + std::ssize(one.continuation) - 1;
  EXPECT_LT(2 * tokens_read(passes), whole);
}

// A row's places and width, and so the shapes that its attention has, are the same whatever other documents are asked.
TEST(Passes, LayOutADocumentByItself) {
  const auto model = make_decoder(256, 64);
  std::vector<TokenRequest> requests = choices({33, 27, 17, 9, 64, 2});
  requests.push_back({tokens(5, 30), tokens(9, 3)});
  const auto layout = [&](const std::vector<TokenRequest>& asked, int64_t most) {
    const std::vector<RequestRow> rows = rows_of(asked);
    std::map<std::vector<int32_t>, std::pair<int64_t, int64_t>> out;
    for (const Pass& pass : passes_of(rows, *model, most))
      for (const PassPart& part : pass.parts)
        for (const RequestRow* row : part.rows)
          if (!pass.contexts.empty()) out[row->read()] = {pass.places, part.width};
    return out;
  };
  const auto together = layout(requests, 16);
  EXPECT_EQ(layout(requests, 1), together);
  EXPECT_FALSE(together.empty());
  for (const auto& [row, place] : together) {
    EXPECT_EQ(place.first % 8, 0);
    EXPECT_EQ(place.second % 4, 0);
  }
  const std::vector<TokenRequest> first(requests.begin(), requests.begin() + 4);
  for (const auto& [row, place] : layout(first, 16)) EXPECT_EQ(together.at(row), place);
}

// A context that fills the window has no room for padding after it, and patches know no continued cache.
TEST(Passes, ReadWholeWhatCannotShare) {
  const auto decoder = make_decoder(256, 64);
  const auto patches = make_patch_model(64);
  for (const models::Model* model :
       {static_cast<const models::Model*>(decoder.get()), static_cast<const models::Model*>(patches.get())}) {
    const std::vector<int32_t> context = tokens(0, model == decoder.get() ? 63 : 30);
    const std::vector<TokenRequest> requests = {{context, {1}}, {context, {2, 3}}};
    const std::vector<RequestRow> rows = rows_of(requests);
    for (const Pass& pass : passes_of(rows, *model, 16)) {
      EXPECT_TRUE(pass.contexts.empty());
      for (const PassPart& part : pass.parts) EXPECT_LE(part.width, model->context());
    }
  }
}

}  // namespace
}  // namespace retort::eval
