// Packing changes what a step costs, not what it learns.
#include <gtest/gtest.h>

#include "tests/data/corpus.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/objective.h"

namespace retort::train {
namespace {

struct Learned {
  double loss = 0;
  std::vector<at::Tensor> gradients;
  int64_t labels = 0;
};

Learned learn(const std::vector<data::Batch>& batches) {
  TinyModel tiny;
  const auto objective = make_cross_entropy();
  Learned out;
  at::Tensor sum;
  for (const data::Batch& batch : batches) {
    const at::Tensor loss = (*objective)(tiny.model, batch).sum;
    sum = sum.defined() ? sum + loss : loss;
    out.labels += batch.valid_labels();
  }
  sum.backward();
  out.loss = sum.item<double>();
  for (const models::Parameter& p : tiny.model.parameters().unique())
    out.gradients.push_back(p.working.grad());
  return out;
}

}  // namespace

// Loss and gradient of packed rows are those of each document in a row of its own.
TEST(PackedLoss, IsTheSumOverDocumentsAlone) {
  const testing::TemporaryDirectory directory;
  const testing::Documents documents = testing::random_documents(7, 40, 30, 200);
  const auto shards = testing::write_corpus(directory / "c", documents);
  std::vector<data::Batch> alone;
  for (int64_t begin = 0; begin < shards->size();) {
    const int64_t end = shards->document_end(begin);
    alone.push_back(data::windows(*shards, {begin}, end - begin, /*isolate_documents=*/true));
    begin = end;
  }
  const Learned expected = learn(alone);
  for (const int64_t sequence : {30, 32, 64}) {
    const data::BatchStream stream(shards, {.sequence = sequence, .rows = 1, .seed = 9, .pack = true});
    std::vector<data::Batch> packed;
    for (int64_t i = 0; i < stream.samples_per_epoch(); ++i) packed.push_back(stream.batch(i));
    EXPECT_LT(packed.size(), alone.size() * 3 / 4);
    const Learned got = learn(packed);
    EXPECT_EQ(got.labels, expected.labels);
    EXPECT_NEAR(got.loss, expected.loss, 1e-6 * expected.loss);
    for (size_t i = 0; i < got.gradients.size(); ++i)
      EXPECT_LT(testing::relative_error(got.gradients[i], expected.gradients[i]), 1e-5) << i;
  }
}

}  // namespace retort::train
