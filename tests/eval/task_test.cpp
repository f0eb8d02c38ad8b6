#include "eval/task.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <mutex>
#include <numbers>

#include "core/error.h"
#include "tests/data/corpus.h"
#include "tests/eval/models.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using ::testing::HasSubstr;
using testing::LookupModel;
using testing::make_decoder;

struct Text {
  testing::TemporaryDirectory directory;
  std::shared_ptr<const data::TokenShards> shards =
      testing::write_corpus(directory / "c", testing::random_documents(1, 12, 30, 256), 50);
};

// A model that counts its passes.
class Counting final : public models::Model {
 public:
  at::Tensor hidden(const models::TokenBlock& block, models::KvCache* cache) override {
    ++passes;
    return inner_.hidden(block, cache);
  }
  std::unique_ptr<models::KvCache> make_cache(int64_t batch, int64_t capacity) const override {
    return inner_.make_cache(batch, capacity);
  }
  const models::DecoderSpec& spec() const override { return inner_.spec(); }
  void set_tokens(int64_t ids) override { inner_.set_tokens(ids); }
  models::Head head() const override { return inner_.head(); }
  models::Parameters& parameters() override { return inner_.parameters(); }
  const models::Parameters& parameters() const override { return inner_.parameters(); }
  int64_t vocabulary() const override { return inner_.vocabulary(); }
  int64_t context() const override { return inner_.context(); }
  int64_t width() const override { return inner_.width(); }
  double flops_per_token(int64_t) const override { return 0.0; }
  int64_t passes = 0;

 private:
  LookupModel inner_{256, 64};
};

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

TEST(Tasks, FiguresAreThoseOfTheTextsScore) {
  Text text;
  const auto comm = comm::make_self_comm();
  const auto model = make_decoder(256, 64);
  for (const int64_t limit : {0, 100}) {
    const TextScore score = score_text(*model, *text.shards, 16, *comm, limit);
    const Figures all =
        Evaluation({.model = *model, .comm = *comm, .text = text.shards, .sequence = 16, .limit = limit})
            .run({"perplexity", "bits_per_byte"});
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all.at("nats_per_token").value, score.nats / static_cast<double>(score.tokens));
    EXPECT_EQ(all.at("perplexity").value, score.perplexity());
    EXPECT_EQ(all.at("bits_per_byte").value, score.bits_per_byte());
    for (const auto& [name, figure] : all) EXPECT_FALSE(figure.higher_is_better) << name;
  }
}

// The linear part of each function of the mean: checked by a step of the mean itself.
TEST(Tasks, ErrorsFollowTheSlopeOfEachFigure) {
  Text text;
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 64);
  const Figures all = Evaluation({.model = model, .comm = *comm, .text = text.shards, .sequence = 9})
                          .run({"bits_per_byte", "perplexity"});
  const Figure& nats = all.at("nats_per_token");
  EXPECT_GT(nats.standard_error, 0.0);
  const auto tokens = static_cast<double>(text.shards->size()),
             bytes = static_cast<double>(text.shards->text_bytes());
  const double step = 1e-6, higher = nats.value + step;
  EXPECT_NEAR(all.at("perplexity").standard_error / nats.standard_error,
              (std::exp(higher) - std::exp(nats.value)) / step, 1e-3 * std::exp(nats.value));
  EXPECT_NEAR(all.at("bits_per_byte").standard_error / nats.standard_error,
              tokens / bytes / std::numbers::ln2, 1e-12);
}

TEST(Tasks, RowsNameTheirFigures) {
  Text text;
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 64);
  for (const Task& task : tasks()) {
    std::vector<std::string> names;
    for (const auto& [name, figure] : Evaluation({.model = model,
                                      .comm = *comm,
                                      .text = text.shards,
                                      .sequence = 8,
                                      .drafter = &model,
                                      .reference = &model})
                                          .run({task.name}))
      names.push_back(name);
    EXPECT_THAT(task.figures, ::testing::UnorderedElementsAreArray(names)) << task.name;
  }
}

TEST(Tasks, ATextIsScoredOnceForAllOfThem) {
  Text text;
  const auto comm = comm::make_self_comm();
  const auto passes = [&](const std::vector<std::string>& names) {
    Counting model;
    Evaluation({.model = model, .comm = *comm, .text = text.shards, .sequence = 1}).run(names);
    return model.passes;
  };
  EXPECT_EQ(passes({"perplexity"}), (text.shards->size() + kScoringRows - 1) / kScoringRows);
  EXPECT_EQ(passes({"perplexity", "bits_per_byte"}), passes({"perplexity"}));
}

TEST(Tasks, FiguresHaveTheSameBitsOnAnyRanks) {
  const testing::Threads one_thread(1);
  Text text;
  const auto figures_on = [&](comm::Comm& comm) {
    const auto model = make_decoder(256, 64);
    LookupModel other(256, 64);
    std::vector<double> out;
    for (const auto& [name, figure] : Evaluation({.model = *model,
                                      .comm = comm,
                                      .text = text.shards,
                                      .sequence = 5,
                                      .drafter = model.get(),
                                      .reference = &other})
                                          .run(tasks().names()))
      out.insert(out.end(), {figure.value, figure.standard_error});
    return out;
  };
  const std::vector<double> alone = figures_on(*comm::make_self_comm());
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      const std::vector<double> mine = figures_on(comm);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(mine, alone) << ranks;
    });
  }
}

TEST(Tasks, SayWhatTheyNeed) {
  Text text;
  const auto comm = comm::make_self_comm();
  LookupModel model(256, 64);
  Evaluation without({.model = model, .comm = *comm, .sequence = 8});
  for (const Task& task : tasks()) {
    EXPECT_FALSE(task.doc.empty());
    EXPECT_THAT(refusal([&] { without.run({task.name}); }),
                HasSubstr(fmt::format("task {} needs a text, and there is none", task.name)));
  }
  Evaluation whole({.model = model, .comm = *comm, .text = text.shards, .sequence = 8});
  EXPECT_THAT(refusal([&] { whole.run({"perplexty"}); }), HasSubstr("did you mean \"perplexity\""));
  EXPECT_THAT(refusal([&] {
                whole.run({"perplexity", "perplexity"});
              }),
              HasSubstr("must come from one task, named once"));
}

}  // namespace
}  // namespace retort::eval
