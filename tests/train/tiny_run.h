// A run of the Trainer on thread ranks over a small corpus, with places to interfere, and what it leaves on disk.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "comm/staged_comm.h"
#include "models/on_device.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"
#include "tests/train/captured_log.h"
#include "tests/train/faulty_files.h"
#include "tests/train/tiny_model.h"
#include "train/embedding_noise.h"
#include "train/train_options.h"
#include "train/trainer.h"

namespace retort::train {

inline double norm_of(const models::Parameters& parameters) {
  double squares = 0;
  for (const models::Parameter& p : parameters.unique())
    squares += p.working.detach().to(at::kDouble).square().sum().item<double>();
  return std::sqrt(squares);
}

inline TrainOptions tiny_options() {
  TrainOptions options;
  options.steps = 20;
  options.optimizer.lr = 1e-2;
  options.schedule.warmup = 4;
  options.log_every = 3;
  options.validate_every = 5;
  options.checkpoint_every = 0;
  options.keep_checkpoints = 1;
  return options;
}

// One run of thread ranks over one corpus, with places to interfere.
struct TinyRun {
  int ranks = 1;
  int64_t micro_batches = 2;  // of a rank
  TrainOptions options = tiny_options();
  QuickFiles* files = &quick_files();
  std::function<void(int rank, int64_t step, std::atomic<bool>& stop)> before_step;
  std::function<void(int rank, TrainerParts& parts)> before_run;
  int odd_text_rank = -1;                        // reads the second corpus instead of the first
  double poison_from = 1e9, poison_until = 1e9;  // steps in which rank 0's loss is multiplied by `poison`
  double poison = std::numeric_limits<double>::quiet_NaN();
  int64_t rows = 2;
  double second_weight = 0.0;  // > 0: a second corpus beside the one of weight 1
  bool other_text = false;     // the second corpus instead of the first
  bool isolate_documents = false;
  int64_t limit = 0;
  at::ScalarType measured = at::kFloat;  // what precision auto finds to be faster
  at::Device device = at::kCPU;          // of rank 0, and each other rank's the next one
  std::function<std::unique_ptr<comm::Comm>(comm::Comm& host)> group_of_devices = comm::make_staged_comm;
  Divided divided = Divided::kNothing;
  int64_t replicas = 1;             // groups of ranks that divide
  int64_t block_rows = 0;           // of every parameter; 0: as the map has it
  std::vector<std::string> frozen;  // parameters
  bool unlabelled = false;          // every fifth step has no labels, from the third on
  EmbeddingNoise noise = {};
  bool learns = false;                // the objective has a parameter of its own
  bool repeatable = false;            // says so (train/micro_graph.h): of a run that nothing poisons
  std::map<int64_t, double> figures;  // of validations, by step; else a norm
  double model_norm = 0;              // of rank 0's weights, after run

  std::string log;                 // rank 0's, after run
  std::vector<int64_t> validated;  // rank 0's
  std::vector<int64_t> map_steps;  // to which rank 0's weight map was moved

  TrainReport operator()(const Path& directory) {
    const testing::Threads one_thread(1);
    CapturedLog captured;
    std::vector<TrainReport> reports(static_cast<size_t>(ranks));
    const auto keep_log = [&] { log = captured.text(); };
    try {
      comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
        Log quiet(stderr, "", /*quiet=*/true);
        reports[static_cast<size_t>(comm.rank())] =
            rank(comm, directory, comm.rank() == 0 ? *captured : quiet);
      });
    } catch (...) {
      keep_log();
      throw;
    }
    keep_log();
    for (const TrainReport& report : reports) {
      EXPECT_EQ(report.steps, reports[0].steps);
      EXPECT_EQ(report.preempted, reports[0].preempted);
      EXPECT_EQ(report.final_loss, reports[0].final_loss);
    }
    return reports[0];
  }

 private:
  // Cross-entropy that tells of its steps and is another in those that the test poisons. It may learn a scale of the
  // first norm's weights.
  struct Loss final : Objective {
    Loss(bool learns, const EmbeddingNoise& noise)
        : inner(make_cross_entropy(noise)), own(learns ? std::make_unique<models::Parameters>() : nullptr) {
      if (own) own->add("objective.scale", {1}, models::Role::kObjective).master.fill_(1.0);
    }
    std::function<bool(int64_t step)> poisons;
    bool poisoned = false, unlabelled = false, repeatable = false;
    std::string not_repeatable() const override {
      return repeatable ? inner->not_repeatable() : Objective::not_repeatable();
    }
    double poison = 0;
    Counted counted() const override {
      if (!unlabelled) return labels();
      return {"labels", [](const data::Batch& batch) {
                return batch.samples.front() / 4 % 5 == 2 ? 0 : batch.valid_labels();
              }};
    }
    std::unique_ptr<Objective> inner;
    std::unique_ptr<models::Parameters> own;
    void begin_step(int64_t step) override { poisoned = poisons(step); }
    models::Parameters* learned() override { return own.get(); }
    LossSum operator()(models::Model& model, const data::Batch& batch) override {
      LossSum loss = (*inner)(model, batch);
      if (own)
        loss.sum = loss.sum +
                   (own->at("objective.scale").working * model.parameters().at("final_norm.weight").working)
                       .square()
                       .sum();
      if (poisoned) loss.sum = loss.sum * poison;
      return loss;
    }
    std::vector<std::string> part_names() const override { return inner->part_names(); }
  };

  // The identity, which writes down the steps that it is moved to.
  struct Map final : models::WeightMap {
    std::vector<int64_t> steps;
    bool begin_step(int64_t step) override { return steps.push_back(step), false; }
    at::Tensor apply(const models::Parameter&, const at::Tensor& x) override { return x; }
    at::Tensor pull_back(const models::Parameter&, const at::Tensor& gradient) override { return gradient; }
    bool identity_for(const models::Parameter&) const override { return true; }
  };

  static const std::shared_ptr<const data::TokenShards>& corpus() {
    static const testing::TemporaryDirectory directory;
    static const auto shards =
        testing::write_corpus(directory / "shards", testing::random_documents(4, 40, 60, 23));
    return shards;
  }
  static const std::shared_ptr<const data::TokenShards>& second_corpus() {
    static const testing::TemporaryDirectory directory;
    static const auto shards =
        testing::write_corpus(directory / "shards", testing::random_documents(5, 4, 60, 23));
    return shards;
  }

  TrainReport rank(comm::Comm& group, const Path& directory, Log& log_of_rank) {
    const at::Device own =
        device.is_cpu()
            ? device
            : at::Device(device.type(), static_cast<c10::DeviceIndex>(device.index() + group.rank()));
    const auto of_devices = device.is_cpu() ? nullptr : group_of_devices(group);
    comm::Comm& comm = device.is_cpu() ? group : *of_devices;
    TinyModel tiny;
    for (const std::string& name : frozen) tiny.model.parameters().at(name).freeze();
    Map map;
    models::bind_working(tiny.model.parameters(), map, measured);
    Loss objective(learns, noise);
    objective.unlabelled = unlabelled;
    objective.repeatable = repeatable;
    objective.poison = poison;
    models::move_to(tiny.model.parameters(), own);
    if (objective.learned()) models::move_to(*objective.learned(), own);
    if (block_rows > 0)
      for (models::Parameter& p : tiny.model.parameters().unique()) p.placement.owned.step = block_rows;
    Owners owners({tiny.model.parameters(), objective.learned()}, comm, divided, &tiny.model, replicas);
    std::atomic<bool> stop = false;
    const auto optimizer = make_optimizer(options.optimizer, {tiny.model.parameters(), objective.learned()});
    std::vector<data::Source> sources = {
        {"first", other_text || comm.rank() == odd_text_rank ? second_corpus() : corpus()}};
    if (second_weight > 0) sources.push_back({"second", second_corpus(), second_weight});
    const data::BatchStream stream(
        sources,
        {.sequence = 12, .rows = rows, .seed = 3, .isolate_documents = isolate_documents, .limit = limit});
    TrainerParts parts{.step = {tiny.model, map, objective, *optimizer, comm, &owners},
                       .stream = stream,
                       .files = *files,
                       .log = log_of_rank,
                       .directory = directory,
                       .recipe = "run: { name: tiny }\n",
                       .facts = {{"model", "a tiny decoder"}},
                       .validate = {},
                       .stop = &stop,
                       .ranges = *files};
    objective.poisons = [&, this](int64_t step) {
      const auto s = static_cast<double>(step);
      if (before_step) before_step(comm.rank(), step, stop);
      return comm.rank() == 0 && s >= poison_from && s < poison_until;
    };
    parts.validate = [&, this](int64_t done) -> std::map<std::string, double> {
      if (comm.rank() == 0) validated.push_back(done);
      if (!figures.empty()) return {{"figure", figures.at(done)}};
      return {{"norm", tiny.model.parameters().unique()[0].master.norm().item<double>()}};
    };
    if (before_run) before_run(comm.rank(), parts);
    const TrainReport report = Trainer(std::move(parts), options, micro_batches).run();
    if (comm.rank() == 0) map_steps = map.steps;
    if (comm.rank() == 0 && owners.gathered() == nullptr) model_norm = norm_of(tiny.model.parameters());
    return report;
  }
};

// Every file below, by relative name, without what may hold wall-clock facts.
inline std::map<std::string, std::string> contents(const Path& directory) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    const std::string name = std::filesystem::relative(entry.path(), directory).string();
    if (entry.is_regular_file() && !name.starts_with("tensorboard") && name != "progress.json")
      out[name] = read_text(entry.path());
  }
  return out;
}

inline void expect_same(const Path& a, const Path& b) {
  const auto left = contents(a), right = contents(b);
  ASSERT_EQ(left.size(), right.size());
  EXPECT_EQ(left.size(), 6u);  // a checkpoint of four files, LATEST and metrics.jsonl
  for (const auto& [name, bytes] : left) {
    ASSERT_TRUE(right.contains(name)) << name;
    EXPECT_TRUE(bytes == right.at(name)) << name;
  }
}

// Sets the flag of one rank while step `at` runs.
inline auto stop_at(int64_t at, int on_rank) {
  return [=](int rank, int64_t step, std::atomic<bool>& stop) {
    if (rank == on_rank && step == at) stop = true;
  };
}

}  // namespace retort::train
