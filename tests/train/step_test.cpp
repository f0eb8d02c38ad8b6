#include "train/step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "tests/kernels/block_squares.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/trained.h"

namespace retort::train {
namespace {

double norm_of(const std::vector<at::Tensor>& gradients) {
  std::vector<kernels::BlockedGradient> blocked;
  for (const at::Tensor& g : gradients) blocked.push_back({g, models::cut_into_blocks(g.sizes())});
  return kernels::norm_of(kernels::block_squares(blocked));
}

struct Outcome {
  std::vector<at::Tensor> weights;
  std::vector<StepStats> stats;
};

// `steps` steps of one rank; micro-batch i of rank r takes the batch that a Trainer would give it.
Outcome train(comm::Comm& comm, int64_t micro_batches, int64_t steps, Objective& objective) {
  TinyModel tiny;
  OptimizerOptions options;
  options.lr = 1e-2;
  const auto optimizer = make_optimizer(options, tiny.model.parameters());
  TrainStep step({tiny.model, tiny.map, objective, *optimizer, comm}, micro_batches, /*clip_norm=*/1.0);
  Outcome outcome;
  for (int64_t s = 0; s < steps; ++s) {
    std::vector<data::Batch> batches;
    for (int64_t i = 0; i < micro_batches; ++i)
      batches.push_back(tiny_batch((s * comm.size() + comm.rank()) * micro_batches + i));
    outcome.stats.push_back(step.run(s, batches, options.lr));
  }
  outcome.weights = tiny.weights();
  return outcome;
}

std::vector<Outcome> train_ranks(int ranks, int64_t micro_batches, int64_t steps,
                                 const std::function<std::unique_ptr<Objective>(int rank)>& objective_of) {
  const testing::Threads one_thread(1);
  std::vector<Outcome> outcomes(static_cast<size_t>(ranks));
  comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
    const auto objective = objective_of(comm.rank());
    outcomes[static_cast<size_t>(comm.rank())] = train(comm, micro_batches, steps, *objective);
  });
  return outcomes;
}

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void expect_same(const Outcome& a, const Outcome& b) {
  ASSERT_EQ(a.stats.size(), b.stats.size());
  for (size_t s = 0; s < a.stats.size(); ++s) {
    EXPECT_TRUE(same_bits(a.stats[s].loss, b.stats[s].loss)) << s;
    EXPECT_TRUE(same_bits(a.stats[s].gradient_norm, b.stats[s].gradient_norm)) << s;
    ASSERT_EQ(a.stats[s].parts.size(), b.stats[s].parts.size());
    EXPECT_TRUE(same_bits(a.stats[s].parts[0], b.stats[s].parts[0])) << s;
    EXPECT_EQ(a.stats[s].counted, b.stats[s].counted);
    EXPECT_EQ(a.stats[s].skipped, b.stats[s].skipped);
  }
  for (size_t i = 0; i < a.weights.size(); ++i)
    EXPECT_TRUE(testing::same_bits(a.weights[i], b.weights[i])) << i;
}

// Keeps what an update would take and changes nothing.
class Recorder final : public Optimizer {
 public:
  void step(const Trained&, const std::vector<at::Tensor>& gradients, double, const at::Tensor& verdict,
            const std::vector<kernels::WorkingCopy>&) override {
    gradients_.clear();
    for (const at::Tensor& g : gradients)
      gradients_.push_back(g.defined() ? g * verdict[1].item<double>() : g);
  }
  void left_out() override {}
  formats::NamedTensors state() const override { return {}; }
  std::vector<const models::Parameter*> state_parameters() const override { return {}; }
  void set_state(const std::map<std::string, at::Tensor>&) override {}
  std::vector<at::Tensor> gradients_;
};

std::vector<at::Tensor> gradients_of(TinyModel& tiny, models::WeightMap& map,
                                     const std::vector<data::Batch>& batches, double clip_norm = 0.0) {
  Recorder recorder;
  const auto comm = comm::make_self_comm();
  const auto objective = make_cross_entropy();
  TrainStep step({tiny.model, map, *objective, recorder, *comm}, std::ssize(batches), clip_norm);
  step.run(0, batches, 1.0);
  return recorder.gradients_;
}

// Cross-entropy that is poisoned in one place: its gradient, or its value alone.
class Poisoned final : public Objective {
 public:
  Poisoned(int64_t call, bool value_only) : call_(call), value_only_(value_only) {}
  LossSum operator()(models::Model& model, const data::Batch& batch) override {
    LossSum loss = (*inner_)(model, batch);
    if (count_++ != call_) return loss;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    return {value_only_ ? loss.sum + nan : loss.sum * nan, loss.parts};
  }
  std::vector<std::string> part_names() const override { return inner_->part_names(); }

 private:
  std::unique_ptr<Objective> inner_ = make_cross_entropy();
  int64_t call_, count_ = 0;
  bool value_only_;
};

}  // namespace

TEST(TrainStep, HowMicroBatchesAreSplitDoesNotChangeABit) {
  const auto objective = [](int) { return make_cross_entropy(); };
  const Outcome one = train_ranks(1, 4, 20, objective).front();
  EXPECT_LT(one.stats.back().loss, one.stats.front().loss - 0.5);  // it learns
  for (const int ranks : {2, 4})
    for (const Outcome& outcome : train_ranks(ranks, 4 / ranks, 20, objective)) expect_same(outcome, one);
}

// Every split of a step over up to 8 ranks, also where a rank's micro-batches are no power of two.
TEST(TrainStep, NoSplitChangesABit) {
  const auto objective = [](int) { return make_cross_entropy(); };
  for (const int64_t micro_batches : {5, 6, 7, 8, 12, 24}) {
    const Outcome one = train_ranks(1, micro_batches, 3, objective).front();
    for (int ranks = 2; ranks <= 8; ++ranks) {
      if (micro_batches % ranks != 0) continue;
      SCOPED_TRACE(fmt::format("{} micro-batches on {} ranks", micro_batches, ranks));
      for (const Outcome& outcome : train_ranks(ranks, micro_batches / ranks, 3, objective))
        expect_same(outcome, one);
    }
  }
}

// Once a step, before its first micro-batch.
TEST(TrainStep, TellsTheObjectiveWhichStepItIs) {
  class Listener final : public Objective {
   public:
    void begin_step(int64_t step) override { heard_.push_back(step); }
    LossSum operator()(models::Model& model, const data::Batch& batch) override {
      heard_.push_back(-1);
      return (*inner_)(model, batch);
    }
    std::vector<std::string> part_names() const override { return inner_->part_names(); }
    std::vector<int64_t> heard_;

   private:
    std::unique_ptr<Objective> inner_ = make_cross_entropy();
  } listener;
  const auto comm = comm::make_self_comm();
  train(*comm, 2, 2, listener);
  EXPECT_EQ(listener.heard_, (std::vector<int64_t>{0, -1, -1, 1, -1, -1}));
}

// Once a step, before its forward pass; what the map then makes otherwise is what the step multiplies with.
TEST(TrainStep, MovesTheWeightMapToItsStep) {
  struct Growing final : models::WeightMap {
    std::vector<int64_t> heard;
    double factor = 1.0;
    bool begin_step(int64_t step) override {
      heard.push_back(step);
      if (step != 1) return false;
      factor = 2.0;
      return true;
    }
    at::Tensor apply(const models::Parameter&, const at::Tensor& x) override { return x * factor; }
    at::Tensor pull_back(const models::Parameter&, const at::Tensor& g) override { return g * factor; }
  } map;
  TinyModel tiny, doubled;
  models::bind_working(tiny.model.parameters(), map, at::kFloat);
  for (models::Parameter& p : doubled.model.parameters().unique()) p.master.mul_(2.0);
  const auto comm = comm::make_self_comm();
  const auto objective = make_cross_entropy();
  Recorder recorder;  // the masters stay
  TrainStep step({tiny.model, map, *objective, recorder, *comm}, 1, 0.0),
      of_doubled({doubled.model, doubled.map, *objective, recorder, *comm}, 1, 0.0);
  const double plain = step.run(0, {tiny_batch(0)}, 1.0).loss, twice = step.run(1, {tiny_batch(0)}, 1.0).loss;
  EXPECT_NE(plain, twice);
  EXPECT_EQ(twice, of_doubled.run(0, {tiny_batch(0)}, 1.0).loss);
  EXPECT_EQ(map.heard, (std::vector<int64_t>{0, 1}));
}

// The head and the embedding, and the one feed-forward network of both layers, stay as they are, bit for bit,
// and the norm is that of the others.
TEST(TrainStep, FrozenParametersKeepTheirBits) {
  const auto frozen = [](const models::Parameter& p) {
    return p.name == "embed.weight" || p.name == "layers.0.ffn.up.weight";
  };
  const auto run = [&](comm::Comm& comm, int64_t micro_batches, at::ScalarType dtype) {
    TinyModel tiny;
    for (models::Parameter& p : tiny.model.parameters().unique())
      if (frozen(p)) p.freeze();
    models::bind_working(tiny.model.parameters(), tiny.map, dtype);
    const std::vector<at::Tensor> before = tiny.weights();
    const auto objective = make_cross_entropy();
    const auto optimizer = make_optimizer({.lr = 1e-2, .decay_all = true}, tiny.model.parameters());
    TrainStep step({tiny.model, tiny.map, *objective, *optimizer, comm}, micro_batches, 1.0);
    Outcome outcome;
    for (int64_t s = 0; s < 5; ++s) {
      std::vector<data::Batch> batches;
      for (int64_t i = 0; i < micro_batches; ++i)
        batches.push_back(tiny_batch((s * comm.size() + comm.rank()) * micro_batches + i));
      outcome.stats.push_back(step.run(s, batches, 1e-2));
    }
    outcome.weights = tiny.weights();
    for (size_t i = 0; const models::Parameter& p : tiny.model.parameters().unique()) {
      EXPECT_EQ(testing::same_bits(before[i], outcome.weights[i]), frozen(p)) << p.name;
      ++i;
    }
    EXPECT_LT(outcome.stats.back().loss, outcome.stats.front().loss);
    return outcome;
  };
  const testing::Threads one_thread(1);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Outcome alone = run(*comm::make_self_comm(), 2, dtype);
    std::vector<Outcome> split(2);
    comm::run_thread_ranks(2, [&](comm::Comm& comm) { split[comm.rank()] = run(comm, 1, dtype); });
    for (const Outcome& outcome : split) expect_same(outcome, alone);
  }

  TinyModel all, some;
  const auto free = gradients_of(all, all.map, {tiny_batch(0)});
  for (models::Parameter& p : some.model.parameters().unique())
    if (frozen(p)) p.freeze();
  Recorder recorder;
  const auto comm = comm::make_self_comm();
  const auto objective = make_cross_entropy();
  TrainStep step({some.model, some.map, *objective, recorder, *comm}, 1, 0.0);
  const double norm = step.run(0, {tiny_batch(0)}, 1.0).gradient_norm;
  double squares = 0;
  for (size_t i = 0; const models::Parameter& p : some.model.parameters().unique()) {
    if (!frozen(p)) squares += free[i].to(at::kDouble).square().sum().item<double>();
    ++i;
  }
  EXPECT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);
}

TEST(TrainStep, Fault32MicroBatchesWithFewAndManyLabelsEqualOneBigBatch) {
  const std::vector<data::Batch> parts{tiny_batch(0), tiny_batch(4)};  // 24 and 8 valid labels
  ASSERT_EQ(parts[0].valid_labels(), 3 * parts[1].valid_labels());
  const data::Batch whole{at::cat({parts[0].tokens_BT, parts[1].tokens_BT}),
                          at::cat({parts[0].labels_BT, parts[1].labels_BT}),
                          {},
                          {},
                          {}};
  TinyModel tiny;
  const auto split = gradients_of(tiny, tiny.map, parts), big = gradients_of(tiny, tiny.map, {whole});
  const auto first = gradients_of(tiny, tiny.map, {parts[0]}),
             second = gradients_of(tiny, tiny.map, {parts[1]});
  for (size_t i = 0; i < big.size(); ++i) {
    EXPECT_LT(testing::relative_error(split[i], big[i]), 1e-5) << i;
    EXPECT_GT(testing::relative_error((first[i] + second[i]) / 2, big[i]), 1e-2) << i;  // the mean of means
  }
}

// A loss for each row instead of each label: gradient and figures are means over rows of all ranks.
TEST(TrainStep, DividesByWhatTheObjectiveCounts) {
  class OfRows final : public Objective {
   public:
    LossSum operator()(models::Model& model, const data::Batch& batch) override {
      return (*inner_)(model, batch);
    }
    std::vector<std::string> part_names() const override { return inner_->part_names(); }
    Counted counted() const override {
      return {"rows", [](const data::Batch& batch) { return batch.tokens_BT.size(0); }};
    }

   private:
    std::unique_ptr<Objective> inner_ = make_cross_entropy();
  };
  const auto first_step = [](const std::function<std::unique_ptr<Objective>(int)>& objective) {
    return train_ranks(2, 2, 1, objective).front().stats.front();
  };
  const StepStats labels = first_step([](int) { return make_cross_entropy(); });
  const StepStats rows = first_step([](int) { return std::make_unique<OfRows>(); });
  ASSERT_EQ(rows.counted, 2 * 2 * 2);  // ranks, micro-batches, rows of each
  const double ratio = static_cast<double>(labels.counted) / static_cast<double>(rows.counted);
  EXPECT_NEAR(rows.loss / labels.loss, ratio, 1e-9 * ratio);
  EXPECT_NEAR(rows.parts[0] / labels.parts[0], ratio, 1e-9 * ratio);
  EXPECT_NEAR(rows.gradient_norm / labels.gradient_norm, ratio, 1e-5 * ratio);
}

// Cross-entropy plus a penalty on what the objective itself learns: sum over labels of |w - tokens|^2.
class Learning final : public Objective {
 public:
  Learning() { learned_.add("objective.w", {5}, models::Role::kObjective).master.zero_(); }
  LossSum operator()(models::Model& model, const data::Batch& batch) override {
    LossSum loss = (*inner_)(model, batch);
    const at::Tensor target = batch.tokens_BT[0].narrow(0, 0, 5).to(at::kFloat) / 31;
    const at::Tensor penalty = (learned_.at("objective.w").working - target).square().sum();
    return {loss.sum + penalty * batch.valid_labels(), loss.parts};
  }
  std::vector<std::string> part_names() const override { return inner_->part_names(); }
  models::Parameters* learned() override { return &learned_; }
  at::Tensor w() { return learned_.at("objective.w").master; }

 private:
  std::unique_ptr<Objective> inner_ = make_cross_entropy();
  models::Parameters learned_;
};

TEST(TrainStep, WhatTheObjectiveLearnsIsTrainedBesideTheModel) {
  TinyModel tiny;
  const auto comm = comm::make_self_comm();
  Recorder recorder;
  Learning objective;
  TrainStep step({tiny.model, tiny.map, objective, recorder, *comm}, 1, /*clip_norm=*/0.0);
  const StepStats stats = step.run(0, {tiny_batch(0)}, 1.0);
  ASSERT_EQ(recorder.gradients_.size(), tiny.weights().size() + 1);
  const at::Tensor expected = -2.0 * tiny_batch(0).tokens_BT[0].narrow(0, 0, 5).to(at::kFloat) / 31;
  EXPECT_LT(testing::relative_error(recorder.gradients_.back(), expected), 1e-6);
  double squares = 0;
  for (const at::Tensor& g : recorder.gradients_) squares += g.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(stats.gradient_norm, std::sqrt(squares), 1e-12 * stats.gradient_norm);
}

TEST(TrainStep, WhatTheObjectiveLearnsIsTheSameOnAnyRanks) {
  const testing::Threads one_thread(1);
  const auto learned_by = [](comm::Comm& comm, int64_t micro_batches) {
    TinyModel tiny;
    Learning objective;
    const auto optimizer = make_optimizer({.lr = 1e-2}, {tiny.model.parameters(), objective.learned()});
    TrainStep step({tiny.model, tiny.map, objective, *optimizer, comm}, micro_batches, 1.0);
    for (int64_t s = 0; s < 4; ++s) {
      std::vector<data::Batch> batches;
      for (int64_t i = 0; i < micro_batches; ++i)
        batches.push_back(tiny_batch((s * comm.size() + comm.rank()) * micro_batches + i));
      step.run(s, batches, 1e-2);
    }
    return objective.w().clone();
  };
  const at::Tensor alone = learned_by(*comm::make_self_comm(), 2);
  EXPECT_GT(alone.abs().min().item<float>(), 0.0f);
  comm::run_thread_ranks(2, [&](comm::Comm& comm) {
    EXPECT_TRUE(testing::same_bits(learned_by(comm, 1), alone)) << comm.rank();
  });
}

TEST(TrainStep, NanOnOneRankSkipsTheUpdateOnAll) {
  for (const bool value_only : {false, true}) {
    // Rank 1 is poisoned in step 3 of 5, in its first micro-batch of two.
    const auto poisoned = train_ranks(2, 2, 5, [&](int rank) -> std::unique_ptr<Objective> {
      if (rank == 1) return std::make_unique<Poisoned>(3 * 2, value_only);
      return make_cross_entropy();
    });
    expect_same(poisoned[0], Outcome{poisoned[0].weights, poisoned[1].stats});
    for (const Outcome& outcome : poisoned)
      for (size_t s = 0; s < 5; ++s) EXPECT_EQ(outcome.stats[s].skipped, s == 3);
    for (size_t i = 0; i < poisoned[0].weights.size(); ++i) {
      EXPECT_TRUE(testing::same_bits(poisoned[0].weights[i], poisoned[1].weights[i]));
      EXPECT_TRUE(at::isfinite(poisoned[0].weights[i]).all().item<bool>());
    }
  }
}

// To the last bit, and alike whether the device of one rank decides or the hosts of several.
TEST(TrainStep, LimitsSkipAStepAlikeOnAnyRanks) {
  const testing::Threads one_thread(1);
  const auto stats_of = [](comm::Comm& comm, const StepLimits& limits) {
    TinyModel tiny;
    const auto optimizer = make_optimizer({}, tiny.model.parameters());
    const auto objective = make_cross_entropy();
    const int64_t each = 4 / comm.size();
    TrainStep step({tiny.model, tiny.map, *objective, *optimizer, comm}, each, 1.0);
    std::vector<data::Batch> batches;
    for (int64_t i = 0; i < each; ++i) batches.push_back(tiny_batch(comm.rank() * each + i));
    const std::vector<at::Tensor> before = tiny.weights();
    const StepStats stats = step.run(0, batches, 1e-2, limits);
    EXPECT_EQ(testing::same_bits(before[0], tiny.weights()[0]), stats.skipped);
    return stats;
  };
  const auto alone = comm::make_self_comm();
  const StepStats usual = stats_of(*alone, {});
  const double loss = usual.loss, norm = usual.gradient_norm, most = std::numeric_limits<double>::infinity();
  for (const int ranks : {1, 2, 4})
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      EXPECT_FALSE(stats_of(comm, {.loss = loss, .norm = norm}).skipped) << ranks;
      EXPECT_TRUE(stats_of(comm, {.loss = std::nextafter(loss, 0.0)}).skipped) << ranks;
      const StepStats skipped = stats_of(comm, {.norm = std::nextafter(norm, 0.0)});
      EXPECT_TRUE(skipped.skipped) << ranks;
      EXPECT_EQ(skipped.loss, loss);
      EXPECT_FALSE(stats_of(comm, {.loss = most, .norm = most}).skipped) << ranks;
    });
}

TEST(TrainStep, ASkippedStepLeavesNoTrace) {
  TinyModel tiny;
  const auto comm = comm::make_self_comm();
  const auto optimizer = make_optimizer({}, tiny.model.parameters());
  Poisoned objective(0, /*value_only=*/false);
  TrainStep step({tiny.model, tiny.map, objective, *optimizer, *comm}, 1, 1.0);
  const std::vector<at::Tensor> before = tiny.weights();
  const StepStats stats = step.run(0, {tiny_batch(0)}, 1e-2);
  EXPECT_TRUE(stats.skipped);
  EXPECT_TRUE(std::isnan(stats.gradient_norm));
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(testing::same_bits(tiny.weights()[i], before[i]));
  for (const auto& [name, tensor] : optimizer->state())
    EXPECT_EQ(tensor.count_nonzero().item<int64_t>(), 0) << name;
  EXPECT_FALSE(step.run(1, {tiny_batch(0)}, 1e-2).skipped);  // and the next one is clean
}

TEST(TrainStep, ClipsTheGlobalNorm) {
  TinyModel tiny;
  const auto free = gradients_of(tiny, tiny.map, {tiny_batch(0)});
  const double norm = norm_of(free);
  const auto clipped = gradients_of(tiny, tiny.map, {tiny_batch(0)}, norm / 4);
  EXPECT_NEAR(norm_of(clipped), norm / 4, 1e-6 * norm);
  for (size_t i = 0; i < free.size(); ++i) EXPECT_LT(testing::relative_error(clipped[i] * 4, free[i]), 1e-6);
}

// A map may give its gradients in any layout; clipping reaches them all the same.
TEST(TrainStep, ClipsGradientsOfAnyLayout) {
  struct Turning final : models::WeightMap {
    at::Tensor apply(const models::Parameter&, const at::Tensor& x) override { return x; }
    at::Tensor pull_back(const models::Parameter&, const at::Tensor& g) override {
      return g.dim() == 2 ? g.t().contiguous().t() : g;
    }
  } turning;
  TinyModel tiny;
  const auto straight = gradients_of(tiny, tiny.map, {tiny_batch(0)}, 1e-3);
  models::bind_working(tiny.model.parameters(), turning, at::kFloat);
  const auto turned = gradients_of(tiny, turning, {tiny_batch(0)}, 1e-3);
  for (size_t i = 0; i < turned.size(); ++i) EXPECT_TRUE(testing::same_bits(turned[i], straight[i])) << i;
}

TEST(TrainStep, TheNormIsOfTheBlocksThatTheRankOwns) {
  const auto norm = [](TinyModel& tiny) {
    Recorder recorder;
    const auto comm = comm::make_self_comm();
    const auto objective = make_cross_entropy();
    TrainStep step({tiny.model, tiny.map, *objective, recorder, *comm}, 1, 0.0);
    return step.run(0, {tiny_batch(0)}, 1.0).gradient_norm;
  };
  TinyModel whole, part;
  std::vector<at::Tensor> owned = gradients_of(whole, whole.map, {tiny_batch(0)});
  EXPECT_EQ(norm(whole), norm_of(owned));
  for (size_t i = 0; models::Parameter & p : part.model.parameters().unique()) {
    p.placement.owned.begin = p.shape[0] / 3;
    owned[i] = owned[i].slice(0, p.shape[0] / 3).contiguous();
    ++i;
  }
  EXPECT_EQ(norm(part), norm_of(owned));
  EXPECT_LT(norm(part), norm(whole));
}

TEST(TrainStep, GradientsComeBackThroughTheWeightMap) {
  struct Double final : models::WeightMap {
    at::Tensor apply(const models::Parameter&, const at::Tensor& x) override { return 2 * x; }
    at::Tensor pull_back(const models::Parameter&, const at::Tensor& g) override { return 2 * g; }
  } twice;
  TinyModel doubled, plain;
  for (models::Parameter& p : doubled.model.parameters().unique()) p.master.mul_(0.5);
  models::bind_working(doubled.model.parameters(), twice, at::kFloat);
  const auto a = gradients_of(doubled, twice, {tiny_batch(0)}),
             b = gradients_of(plain, plain.map, {tiny_batch(0)});
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(testing::same_bits(a[i], 2 * b[i])) << i;
}

TEST(TrainStep, WorkingCopiesFollowTheMasters) {
  TinyModel tiny;
  models::bind_working(tiny.model.parameters(), tiny.map, at::kBFloat16);
  const auto comm = comm::make_self_comm();
  const auto objective = make_cross_entropy();
  const auto optimizer = make_optimizer({}, tiny.model.parameters());
  TrainStep step({tiny.model, tiny.map, *objective, *optimizer, *comm}, 1, 1.0);
  const std::vector<at::Tensor> before = tiny.weights();
  const StepStats stats = step.run(0, {tiny_batch(0)}, 1e-2);
  EXPECT_TRUE(std::isfinite(stats.loss));
  for (size_t i = 0; i < before.size(); ++i) {
    const models::Parameter& p = tiny.model.parameters().unique()[i];
    EXPECT_FALSE(testing::same_bits(p.master, before[i])) << p.name;
    EXPECT_TRUE(testing::same_bits(p.working.detach(), p.master.to(p.working.scalar_type()))) << p.name;
  }
}

// No decay and no momentum, and the optimizer does not count it: the steps around it give the same bits without it.
TEST(TrainStep, AStepWithoutLabelsOnAnyRankIsNoUpdate) {
  const auto run = [](comm::Comm& comm, bool with_empty) {
    TinyModel tiny;
    OptimizerOptions options;
    options.decay_all = options.decay_embeddings = true;
    const auto optimizer = make_optimizer(options, tiny.model.parameters());
    const auto objective = make_cross_entropy();
    TrainStep step({tiny.model, tiny.map, *objective, *optimizer, comm}, 2, 1.0);
    data::Batch empty = tiny_batch(7);
    empty.labels_BT.fill_(data::kIgnored);
    for (int64_t s = 0; s < 4; ++s) {
      if (s == 2 && with_empty) {
        const StepStats stats = step.run(9, {empty, empty}, 1e-2);
        EXPECT_FALSE(stats.measured());
        EXPECT_FALSE(stats.skipped);
        EXPECT_TRUE(std::isnan(stats.loss) && std::isnan(stats.gradient_norm) && stats.parts.empty());
      }
      EXPECT_TRUE(step.run(s, {tiny_batch(2 * s + comm.rank()), empty}, 1e-2).measured());
    }
    std::vector<at::Tensor> out = tiny.weights();
    for (const auto& [name, tensor] : optimizer->state()) out.push_back(tensor.clone());
    return out;
  };
  comm::run_thread_ranks(2, [&](comm::Comm& comm) {
    const std::vector<at::Tensor> with = run(comm, true), without = run(comm, false);
    for (size_t i = 0; i < with.size(); ++i) EXPECT_TRUE(testing::same_bits(with[i], without[i])) << i;
  });
}

// It is enough that another rank has some.
TEST(TrainStep, ARankWithoutLabelsTakesPart) {
  comm::run_thread_ranks(2, [](comm::Comm& comm) {
    TinyModel tiny;
    const auto optimizer = make_optimizer({}, tiny.model.parameters());
    const auto objective = make_cross_entropy();
    TrainStep step({tiny.model, tiny.map, *objective, *optimizer, comm}, 1, 1.0);
    data::Batch batch = tiny_batch(1);
    if (comm.rank() == 1) batch.labels_BT.fill_(data::kIgnored);
    const std::vector<at::Tensor> before = tiny.weights();
    const StepStats stats = step.run(0, {batch}, 1e-2);
    EXPECT_EQ(stats.counted, tiny_batch(1).valid_labels());
    EXPECT_TRUE(std::isfinite(stats.loss));
    EXPECT_FALSE(testing::same_bits(tiny.weights()[0], before[0]));
  });
}

}  // namespace retort::train
