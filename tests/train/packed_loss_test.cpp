// Packing changes what a step costs, not what it learns.
#include <gtest/gtest.h>

#include "tests/data/corpus.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/objective.h"
#include "train/step.h"

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
    const at::Tensor loss = (*objective)(tiny.model, batch).sum.to(at::kDouble);
    sum = sum.defined() ? sum + loss : loss;
    out.labels += batch.valid_labels();
  }
  sum.backward();
  out.loss = sum.item<double>();
  for (const models::Parameter& p : tiny.model.parameters().unique())
    out.gradients.push_back(p.working.grad());
  return out;
}

// Keeps what it is given and changes nothing.
class Recorder final : public Optimizer {
 public:
  void step(const Trained&, const std::vector<at::Tensor>& gradients, double, const at::Tensor&,
            const std::vector<kernels::WorkingCopy>&) override {
    for (const at::Tensor& g : gradients) gradients_.push_back(g.clone());
  }
  void left_out() override {}
  formats::NamedTensors state() const override { return {}; }
  std::vector<const models::Parameter*> state_parameters() const override { return {}; }
  void set_state(const std::map<std::string, at::Tensor>&) override {}
  std::vector<at::Tensor> gradients_;
};

// One step on 48 packed rows, as rank 0 sees it: its loss is a mean over labels.
Learned step_on_ranks(const data::BatchStream& stream, int ranks) {
  const testing::Threads one_thread(1);
  const int64_t micro_batches = 48 / stream.options().rows / ranks;
  Learned out;
  comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
    TinyModel tiny;
    Recorder recorder;
    const auto objective = make_cross_entropy();
    std::vector<data::Batch> batches;
    for (int64_t i = 0; i < micro_batches; ++i)
      batches.push_back(stream.batch(comm.rank() * micro_batches + i));
    TrainStep step({tiny.model, tiny.map, *objective, recorder, comm}, micro_batches, /*clip_norm=*/0.0);
    const StepStats stats = step.run(0, batches, 1.0);
    if (comm.rank() == 0) out = {stats.loss, recorder.gradients_, stats.counted};
  });
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

// A step of 48 packed rows, cut into micro-batches of 1 to 48 rows on 1 to 8 ranks, is the step on its documents alone.
TEST(PackedLoss, IsTheSameInAnyMicroBatchesAndOnAnyRanks) {
  const testing::TemporaryDirectory directory;
  const auto shards = testing::write_corpus(directory / "c", testing::random_documents(8, 150, 24, 200));
  const data::BatchStream one(shards, {.sequence = 32, .rows = 1, .seed = 9, .pack = true});
  std::vector<data::Batch> alone;
  for (int64_t sample = 0; sample < 48; ++sample)
    for (const data::Segment& segment : one.packed(0)->row(one.place(sample).row))
      alone.push_back(data::windows(*shards, {segment.begin}, segment.length, /*isolate_documents=*/true));
  EXPECT_GT(alone.size(), 96u);
  const Learned expected = learn(alone);
  const auto labels = static_cast<double>(expected.labels);
  for (const int64_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 24, 48})
    for (const int ranks : {1, 2, 3, 4, 6, 8}) {
      if (48 / rows % ranks != 0) continue;
      SCOPED_TRACE(fmt::format("micro-batches of {} rows on {} ranks", rows, ranks));
      const data::BatchStream stream(shards, {.sequence = 32, .rows = rows, .seed = 9, .pack = true});
      const Learned got = step_on_ranks(stream, ranks);
      EXPECT_EQ(got.labels, expected.labels);
      EXPECT_NEAR(got.loss, expected.loss / labels, 1e-6 * expected.loss / labels);
      ASSERT_EQ(got.gradients.size(), expected.gradients.size());
      for (size_t i = 0; i < got.gradients.size(); ++i)
        EXPECT_LT(testing::relative_error(got.gradients[i] * labels, expected.gradients[i]), 1e-5) << i;
    }
}

}  // namespace retort::train
