#include "train/gathered_weights.h"

#include <gtest/gtest.h>

#include <mutex>

#include "models/initial_values.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/step.h"

namespace retort::train {
namespace {

using models::Parameter, models::Role;

constexpr int64_t kLayers = 6;

models::DecoderSpec deep_spec() {
  models::DecoderSpec spec = tiny_spec();
  spec.layers = kLayers;
  spec.share_ffn = false;
  spec.tie_embeddings = true;
  return spec;
}

// A model whose every matrix is cut, bound in `dtype`.
struct Deep {
  models::Decoder model;
  models::IdentityMap map;
  explicit Deep(at::ScalarType dtype, const models::DecoderSpec& spec = deep_spec()) : model(spec) {
    models::initialise(model.parameters(), "gpt2", 0.1, 5);
    models::bind_working(model.parameters(), map, dtype);
    for (Parameter& p : model.parameters().unique()) p.placement.owned.step = 3;
  }
};

// A loss on what one layer's attention held, and on nothing after it.
class OnQueries final : public Objective {
 public:
  LossSum operator()(models::Model& model, const data::Batch& batch) override {
    std::vector<models::LayerTap> taps{{.layer = 2}};
    model.hidden({.tokens_BT = batch.tokens_BT, .taps = &taps});
    const at::Tensor sum = taps[0].q_BTHK.square().flatten().cumsum(0)[-1];
    return {sum, {sum.detach()}};
  }
  std::vector<std::string> part_names() const override { return {"queries"}; }
};

struct Outcome {
  std::vector<at::Tensor> masters, working;
  std::vector<double> losses;
};

// Three steps of six micro-batches.
Outcome train(comm::Comm& comm, Divided kind, at::ScalarType dtype, Objective& objective,
              const std::function<void(Deep&)>& change = {},
              const std::function<void(const Owners&)>& watch = {}) {
  Deep deep(dtype);
  models::Parameters& parameters = deep.model.parameters();
  if (change) change(deep);
  Owners owners(parameters, comm, kind, &deep.model);
  const auto optimizer = make_optimizer({.lr = 1e-2}, parameters);
  owners.divide_weights();
  const int64_t each = 6 / comm.size();
  const MicroBatches numbers(comm, each, &owners);
  TrainStep step({deep.model, deep.map, objective, *optimizer, comm, &owners}, each, 1.0);
  Outcome out;
  for (int64_t s = 0; s < 3; ++s) {
    std::vector<data::Batch> batches;
    for (int64_t i = 0; i < each; ++i) batches.push_back(tiny_batch(s * numbers.all() + numbers.number(i)));
    out.losses.push_back(step.run(s, batches, 1e-2).loss);
    if (watch) watch(owners);
  }
  owners.make_weights_whole();
  for (const Parameter& p : parameters.unique()) {
    out.masters.push_back(p.master);
    out.working.push_back(p.working.detach());
  }
  return out;
}

void expect_the_bits_of_one_rank(const std::function<std::unique_ptr<Objective>()>& objective,
                                 const std::function<void(Deep&)>& change = {}) {
  const testing::Threads one_thread(1);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Outcome one = train(*comm::make_self_comm(), Divided::kNothing, dtype, *objective(), change);
    for (const int ranks : {2, 3})
      comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
        const Outcome got = train(comm, Divided::kParameters, dtype, *objective(), change);
        EXPECT_EQ(got.losses, one.losses);
        for (size_t i = 0; i < one.masters.size(); ++i) {
          EXPECT_TRUE(testing::same_bits(got.masters[i], one.masters[i])) << ranks << " ranks: " << i;
          EXPECT_TRUE(testing::same_bits(got.working[i], one.working[i])) << ranks << " ranks: " << i;
        }
      });
  }
}

bool has_values(const at::Tensor& tensor) { return tensor.storage().data() != nullptr; }

}  // namespace

TEST(GatheredWeights, OneEmbeddingServesBothEnds) { expect_the_bits_of_one_rank(make_cross_entropy); }

// Gradients enter a layer by its queries and not by its output.
TEST(GatheredWeights, ALayerIsGatheredWhereverGradientsEnterIt) {
  expect_the_bits_of_one_rank([] { return std::make_unique<OnQueries>(); });
}

// Below the first trained layer no gradient flows, so no hook says that its values are read no more.
TEST(GatheredWeights, FrozenWeightsAreDividedToo) {
  const auto freeze = [](Deep& deep) {
    for (Parameter& p : deep.model.parameters().unique())
      if (p.name.starts_with("embed") || p.name.starts_with("layers.0") || p.name.starts_with("layers.3"))
        p.freeze();
  };
  expect_the_bits_of_one_rank(make_cross_entropy, freeze);
}

// Beside its own rows a rank has two groups, whatever the layers: nothing in the graph keeps more alive.
TEST(GatheredWeights, AtMostTwoGroupsAreWhole) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    std::mutex mutex;
    std::map<std::string, int64_t> rows;
    comm::run_thread_ranks(3, [&](comm::Comm& comm) {
      const auto objective = make_cross_entropy();
      int64_t steps = 0;
      train(comm, Divided::kParameters, dtype, *objective, {}, [&](const Owners& owners) {
        const GatheredWeights& weights = *owners.gathered();
        int64_t two = 0, all = 0;
        for (int64_t g = 0; g + 1 < kLayers + 2; ++g)
          two = std::max(two, weights.bytes_of(g) + weights.bytes_of(g + 1));
        for (int64_t g = 0; g + 1 < kLayers + 2; ++g)
          all += weights.bytes_of(g);  // the head is the embedding
        EXPECT_LE(weights.most_bytes(), two);
        EXPECT_LT(two, all / 2);
        EXPECT_GT(weights.most_bytes(), weights.bytes_of(2));
        EXPECT_EQ(weights.bytes(), 0) << "between steps";
        ++steps;
      });
      EXPECT_EQ(steps, 3);
      Deep deep(dtype);
      Owners owners(deep.model.parameters(), comm, Divided::kParameters, &deep.model);
      owners.divide_weights();
      const std::lock_guard lock(mutex);
      for (const Parameter& p : deep.model.parameters().unique()) {
        EXPECT_FALSE(has_values(p.working)) << p.name;
        EXPECT_EQ(p.master.sizes(), owners.gathered()->rows(p).sizes());
        rows[p.name] += p.master.numel();
      }
    });
    const Deep whole(dtype);
    for (const Parameter& p : whole.model.parameters().unique()) EXPECT_EQ(rows.at(p.name), p.numel());
  }
}

// A graph that is alive holds no gathered values: after the forward pass they are gone.
TEST(GatheredWeights, AGraphKeepsNoWeights) {
  comm::run_thread_ranks(2, [](comm::Comm& comm) {
    Deep deep(at::kFloat);
    models::Parameters& parameters = deep.model.parameters();
    Owners owners(parameters, comm, Divided::kParameters, &deep.model);
    owners.divide_weights();
    const at::Tensor h_BTD = deep.model.hidden({.tokens_BT = tiny_batch(0).tokens_BT});
    EXPECT_TRUE(has_values(parameters.at("final_norm.weight").working));
    EXPECT_TRUE(has_values(parameters.at("layers.5.ffn.up.weight").working)) << "backward begins there";
    for (int64_t n = 0; n < kLayers - 1; ++n)
      EXPECT_FALSE(has_values(parameters.at(fmt::format("layers.{}.ffn.up.weight", n)).working)) << n;
    h_BTD.square().sum().backward();
    EXPECT_EQ(owners.gathered()->bytes(), 0);
    EXPECT_TRUE(parameters.at("layers.0.ffn.up.weight").working.grad().defined());
  });
}

// What all layers share is brought once for a pass; the embedding twice, being the head.
TEST(GatheredWeights, WhatLayersShareStays) {
  comm::run_thread_ranks(2, [](comm::Comm& comm) {
    models::DecoderSpec spec = deep_spec();
    spec.share_ffn = true;
    Deep deep(at::kFloat, spec);
    models::Parameters& parameters = deep.model.parameters();
    Owners owners(parameters, comm, Divided::kParameters, &deep.model);
    owners.divide_weights();
    int64_t read = 0, shared = 0;
    for (int64_t g = 0; g < kLayers + 2; ++g) read += owners.gathered()->bytes_of(g);
    for (const char* name : {"gate", "up", "down"})
      shared += 4 * parameters.at(fmt::format("layers.0.ffn.{}.weight", name)).numel();
    const at::NoGradGuard no_grad;
    deep.model.hidden({.tokens_BT = tiny_batch(0).tokens_BT});
    EXPECT_EQ(owners.gathered()->brought_bytes(), read - (kLayers - 1) * shared);
    deep.model.hidden({.tokens_BT = tiny_batch(0).tokens_BT});
    EXPECT_EQ(
        owners.gathered()->brought_bytes(),
        2 * (read - (kLayers - 1) * shared) - owners.gathered()->bytes_of(0));  // the head is still there
  });
}

// A start of which no rank has more than its rows and one parameter.
TEST(GatheredWeights, AModelThatWasNeverWholeHasTheSameRows) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    comm::run_thread_ranks(3, [&](comm::Comm& comm) {
      Deep deep(dtype);
      Owners owners(deep.model.parameters(), comm, Divided::kParameters, &deep.model);
      owners.divide_weights();
      models::Decoder fresh(deep_spec(), at::kMeta);
      models::bind_working(fresh.parameters(), deep.map, dtype);
      for (Parameter& p : fresh.parameters().unique()) p.placement.owned.step = 3;
      Owners own(fresh.parameters(), comm, Divided::kParameters, &fresh);
      own.take_weights(
          [&](const Parameter& p) { return models::initial_values(fresh.parameters(), p, "gpt2", 0.1, 5); });
      for (const Parameter& p : fresh.parameters().unique()) {
        EXPECT_FALSE(has_values(p.working)) << p.name;
        EXPECT_EQ(p.working.scalar_type(), deep.model.parameters().at(p.name).working.scalar_type());
        EXPECT_TRUE(testing::same_bits(p.master, deep.model.parameters().at(p.name).master)) << p.name;
        EXPECT_EQ(p.master.is_alias_of(own.gathered()->rows(p)),
                  dtype == at::kFloat || p.role == Role::kNorm);
      }
      const at::NoGradGuard no_grad;
      const at::Tensor tokens_BT = tiny_batch(0).tokens_BT;
      EXPECT_TRUE(testing::same_bits(fresh.hidden({.tokens_BT = tokens_BT}),
                                     deep.model.hidden({.tokens_BT = tokens_BT})));
    });
}

}  // namespace retort::train
