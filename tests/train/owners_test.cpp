#include "train/owners.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "core/error.h"
#include "tests/kernels/block_squares.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/checkpoint.h"
#include "train/state_shares.h"
#include "train/step.h"

namespace retort::train {
namespace {

using models::Parameters, models::Role;

at::Tensor waves(at::IntArrayRef shape, uint64_t seed) {
  const at::Tensor x = at::arange(c10::multiply_integers(shape), at::kFloat);
  return x.mul(0.37).add(static_cast<double>(seed)).sin().view(shape);
}

// Parameters of one block, of several, of one that is a single block by a map's wish, and a frozen one.
struct Mixed {
  Parameters parameters;
  std::vector<at::Tensor> gradients;
  explicit Mixed(uint64_t seed = 3) {
    add("norm", {70}, Role::kNorm);
    add("embed", {1000, 131}, Role::kEmbedding);
    add("frozen", {400, 131}, Role::kMatrix).freeze();
    add("matrix", {517, 260}, Role::kMatrix);
    add("matrix_scale", {517, 1}, Role::kScale).placement.owned.step =
        parameters.at("matrix").placement.owned.step;
    add("one", {900, 100}, Role::kMatrix).placement.owned.step = 900;
    add("bias", {3}, Role::kBias);
    fill(seed);
  }
  models::Parameter& add(const char* name, std::vector<int64_t> shape, Role role) {
    return parameters.add(name, shape, role);
  }
  std::vector<at::Tensor> own_gradients() const {
    std::vector<at::Tensor> out;
    for (size_t i = 0; const models::Parameter& p : parameters.unique()) {
      out.push_back(p.frozen ? at::Tensor() : owned(p, gradients[i]));
      ++i;
    }
    return out;
  }
  void fill(uint64_t seed) {
    gradients.clear();
    for (uint64_t i = 0; models::Parameter & p : parameters.unique()) {
      p.master.copy_(waves(p.shape, 100 + i));
      gradients.push_back(p.frozen ? at::Tensor() : waves(p.shape, 1000 * seed + i));
      ++i;
    }
  }
};

using OfRank = std::function<void(comm::Comm&)>;
void on_ranks(int ranks, const OfRank& body) { comm::run_thread_ranks(ranks, body); }

// What ranks write of a checkpoint, put together, and how many write each row.
struct Saved {
  std::map<std::string, at::Tensor> values, writers;
};

void put_in(Saved& saved, const StateShares& state) {
  for (const auto* tensors : {&state.weights, &state.optimizer})
    for (const auto& [name, tensor] : *tensors) {
      const Share& share = state.shares.at(name);
      const std::vector<int64_t> shape = tensor.dim() == 0 ? std::vector<int64_t>{1} : tensor.sizes().vec();
      if (!saved.values.contains(name)) {
        saved.values[name] = at::zeros(shape, share.rows.options());
        saved.writers[name] = at::zeros({shape.front()}, at::kLong);
      }
      const int64_t end = share.begin + share.rows.size(0);
      saved.values[name].slice(0, share.begin, end).copy_(share.rows);
      saved.writers[name].slice(0, share.begin, end).add_(1);
    }
}

void expect_whole(const Saved& saved, const formats::NamedTensors& expected) {
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(testing::same_bits(saved.values.at(name).view(tensor.sizes()), tensor)) << name;
    EXPECT_TRUE(at::all(saved.writers.at(name) == 1).item<bool>())
        << name << ": a row has another writer, or none";
  }
}

}  // namespace

TEST(Owners, EveryBlockHasOneOwnerAndTheLoadIsEven) {
  for (const int ranks : {1, 2, 3, 4, 5, 8}) {
    std::mutex mutex;
    std::vector<std::vector<models::RowBlocks>> owned(static_cast<size_t>(ranks));
    on_ranks(ranks, [&](comm::Comm& comm) {
      Mixed mixed;
      const Owners owners(mixed.parameters, comm, Divided::kMoments);
      EXPECT_EQ(owners.divided(), ranks > 1);
      const std::lock_guard lock(mutex);
      for (const models::Parameter& p : mixed.parameters.unique())
        owned[static_cast<size_t>(comm.rank())].push_back(p.placement.owned);
    });
    const Mixed whole;
    std::vector<int64_t> elements(static_cast<size_t>(ranks));
    for (const auto& of_rank : owned) EXPECT_EQ(of_rank[3], of_rank[4]) << "a scale's rows are its weight's";
    int64_t largest = 0, all = 0;
    for (size_t i = 0; const models::Parameter& p : whole.parameters.unique()) {
      int64_t next = 0;
      const int64_t row = p.numel() / p.shape[0], step = p.placement.owned.step;
      for (size_t rank = 0; rank < elements.size(); ++rank) {
        const models::RowBlocks& rows = owned[rank][i];
        EXPECT_EQ(rows.step, step);
        if (p.frozen) {
          EXPECT_TRUE(rows == p.placement.owned) << "not divided";
          continue;
        }
        EXPECT_EQ(rows.begin, next) << p.name << " rank " << rank;
        EXPECT_TRUE(rows.begin % step == 0 || rows.begin == rows.end) << p.name;
        next = rows.end;
        elements[rank] += (rows.end - rows.begin) * row;
      }
      if (!p.frozen) {
        EXPECT_EQ(next, p.shape[0]) << p.name;
        largest = std::max(largest, std::min(step, p.shape[0]) * row), all += p.numel();
      }
      ++i;
    }
    for (const int64_t mine : elements) EXPECT_LE(std::abs(mine - all / ranks), largest + 517) << ranks;
  }
}

// Steps and norms of any number of ranks, divided, have the bits of one rank; so has the state that rank 0 gathers,
// and each rank has its share of it.
TEST(Owners, DividedStepsHaveTheBitsOfWholeOnes) {
  Mixed expected;
  const auto optimizer = make_optimizer({}, expected.parameters);
  std::vector<double> norms;
  const auto norm_of_blocks = [](Mixed& mixed) {
    std::vector<kernels::BlockedGradient> blocks;
    for (size_t i = 0; const models::Parameter& p : mixed.parameters.unique()) {
      if (!p.frozen) blocks.push_back({mixed.gradients[i], p.placement.owned});
      ++i;
    }
    return kernels::block_squares(blocks);
  };
  for (uint64_t step = 0; step < 3; ++step) {
    expected.gradients = Mixed(step).gradients;
    norms.push_back(kernels::norm_of(norm_of_blocks(expected)));
    optimizer->step(expected.parameters, expected.gradients, 1e-2);
  }
  uint64_t whole_bytes = 0;
  for (const auto& [name, tensor] : optimizer->state()) whole_bytes += tensor.nbytes();
  for (const auto& [ranks, kind] : std::vector<std::pair<int, Divided>>{{1, Divided::kMoments},
                                                                        {2, Divided::kMoments},
                                                                        {3, Divided::kMoments},
                                                                        {4, Divided::kMoments},
                                                                        {8, Divided::kMoments},
                                                                        {3, Divided::kGradients}}) {
    std::mutex mutex;
    Saved saved;
    uint64_t most_bytes = 0;
    on_ranks(ranks, [&, kind = kind](comm::Comm& comm) {
      Mixed mixed;
      models::IdentityMap map;
      Owners owners(mixed.parameters, comm, kind);
      owners.divide_weights();
      const auto mine = make_optimizer({}, mixed.parameters);
      for (uint64_t step = 0; step < 3; ++step) {
        mixed.gradients = Mixed(step).gradients;
        EXPECT_EQ(kernels::norm_of(owners.of_all_blocks(norm_of_blocks(mixed))), norms[step]);
        mine->step(mixed.parameters, mixed.own_gradients(), 1e-2);
        owners.refresh(mixed.parameters, map);
      }
      for (const models::Parameter& p : mixed.parameters.unique())
        EXPECT_TRUE(testing::same_bits(p.master, expected.parameters.at(p.name).master)) << p.name;
      uint64_t bytes = 0;
      for (const auto& [name, tensor] : mine->state()) bytes += tensor.nbytes();
      const std::lock_guard lock(mutex);
      put_in(saved, shares_of(mixed.parameters, *mine, &owners, comm));
      most_bytes = std::max(most_bytes, bytes);
    });
    expect_whole(saved, optimizer->state());
    const uint64_t largest_block = 2 * 4 * 900 * 100;
    EXPECT_LE(most_bytes, whole_bytes / static_cast<uint64_t>(ranks) + largest_block) << ranks;
  }
}

// Every row of a checkpoint has one writer, whatever ranks divide, in one group or in several, and several ranks of each
// tensor of many blocks.
TEST(Owners, EveryRowOfACheckpointHasOneWriter) {
  Mixed one;
  const auto before = make_optimizer({}, one.parameters);
  for (const auto& [ranks, replicas, kind] :
       std::vector<std::tuple<int, int64_t, Divided>>{{1, 1, Divided::kNothing},
                                                      {4, 1, Divided::kNothing},
                                                      {3, 1, Divided::kMoments},
                                                      {4, 2, Divided::kMoments},
                                                      {4, 2, Divided::kGradients},
                                                      {4, 4, Divided::kGradients}}) {
    Saved saved;
    std::mutex mutex;
    std::set<int> writers;
    on_ranks(ranks, [&, replicas = replicas, kind = kind](comm::Comm& comm) {
      Mixed mixed;
      Owners owners(mixed.parameters, comm, kind, nullptr, replicas);
      const auto mine = make_optimizer({}, mixed.parameters);
      owners.divide_weights();
      const std::lock_guard lock(mutex);
      const StateShares state = shares_of(mixed.parameters, *mine, &owners, comm);
      if (state.shares.at("embed").rows.numel() > 0) writers.insert(comm.rank());
      put_in(saved, state);
    });
    expect_whole(saved, weights_of(one.parameters));
    expect_whole(saved, before->state());
    EXPECT_EQ(writers.size(), static_cast<size_t>(ranks)) << ranks << " in " << replicas;
  }
}

// A state that was saved whole goes to any number of ranks.
TEST(Owners, AWholeStateIsTakenInShares) {
  Mixed one;
  const auto before = make_optimizer({}, one.parameters);
  before->step(one.parameters, one.gradients, 1e-2);
  std::map<std::string, at::Tensor> saved;
  for (const auto& [name, tensor] : before->state()) saved.emplace(name, tensor.clone());
  on_ranks(3, [&](comm::Comm& comm) {
    Mixed mixed;
    const Owners owners(mixed.parameters, comm, Divided::kGradients);
    const auto mine = make_optimizer({}, mixed.parameters);
    mine->set_state(saved);
    const auto parameters = mine->state_parameters();
    for (size_t i = 0; const auto& [name, tensor] : mine->state()) {
      const models::Parameter* p = parameters[i++];
      EXPECT_TRUE(testing::same_bits(tensor, p == nullptr ? saved.at(name) : owned(*p, saved.at(name))))
          << name;
    }
    std::map<std::string, at::Tensor> wrong = saved;
    wrong.at("adamw.m.matrix") = at::zeros({516, 260});
    EXPECT_THROW(mine->set_state(wrong), CheckpointError);
  });
}

// Masters that have working copies keep this rank's rows; the others, of norms here, stay whole.
TEST(Owners, DividedMastersGiveWholeWorkingCopies) {
  models::IdentityMap map;
  const auto bound = [&](Mixed& mixed) {
    models::bind_working(mixed.parameters, map, at::kBFloat16);
    mixed.parameters.at("one").placement.owned.step = 900;
  };
  Mixed expected;
  bound(expected);
  const auto optimizer = make_optimizer({}, expected.parameters);
  for (uint64_t step = 0; step < 2; ++step) {
    expected.gradients = Mixed(step).gradients;
    optimizer->step(expected.parameters, expected.gradients, 1e-2);
    models::refresh_trained(expected.parameters, map);
  }
  for (const int ranks : {2, 3, 4}) {
    std::mutex mutex;
    Saved saved;
    int64_t elements = 0;
    on_ranks(ranks, [&](comm::Comm& comm) {
      Mixed mixed;
      bound(mixed);
      Owners owners(mixed.parameters, comm, Divided::kGradients);
      const auto mine = make_optimizer({}, mixed.parameters);
      owners.divide_weights();
      for (const models::Parameter& p : mixed.parameters.unique()) {
        const bool divided =
            !p.frozen && p.role != Role::kNorm && p.role != Role::kBias && p.role != Role::kScale;
        EXPECT_EQ(owners.has_rows_alone(p), divided) << p.name;
        const std::lock_guard lock(mutex);
        if (divided) elements += p.master.numel();
      }
      for (uint64_t step = 0; step < 2; ++step) {
        mixed.gradients = Mixed(step).gradients;
        mine->step(mixed.parameters, mixed.own_gradients(), 1e-2);
        owners.refresh(mixed.parameters, map);
      }
      {
        const std::lock_guard lock(mutex);
        put_in(saved, shares_of(mixed.parameters, *mine, &owners, comm));
      }
      owners.make_weights_whole();
      for (const models::Parameter& p : mixed.parameters.unique()) {
        EXPECT_TRUE(testing::same_bits(p.master, expected.parameters.at(p.name).master)) << p.name;
        EXPECT_TRUE(testing::same_bits(p.working, expected.parameters.at(p.name).working)) << p.name;
      }
    });
    expect_whole(saved, weights_of(expected.parameters));
    EXPECT_EQ(elements, 1000 * 131 + 517 * 260 + 900 * 100) << "every row has one owner";
  }
}

namespace {

struct Outcome {
  std::vector<at::Tensor> weights, working;
  std::vector<StepStats> stats;
};

// Four steps of a model whose every matrix is cut.
Outcome steps(comm::Comm& comm, int64_t each, at::ScalarType dtype, Divided kind, int64_t replicas = 1) {
  TinyModel tiny;
  models::Parameters& parameters = tiny.model.parameters();
  models::bind_working(parameters, tiny.map, dtype);
  for (models::Parameter& p : parameters.unique()) p.placement.owned.step = 3;
  Owners owners(parameters, comm, kind, &tiny.model, replicas);
  const auto objective = make_cross_entropy();
  const auto optimizer = make_optimizer({.lr = 1e-2}, parameters);
  owners.divide_weights();
  const MicroBatches numbers(comm, each, &owners);
  TrainStep step({tiny.model, tiny.map, *objective, *optimizer, comm, &owners}, each, 1.0);
  Outcome out;
  for (int64_t s = 0; s < 4; ++s) {
    std::vector<data::Batch> batches;
    for (int64_t i = 0; i < each; ++i) batches.push_back(tiny_batch(s * numbers.all() + numbers.number(i)));
    out.stats.push_back(step.run(s, batches, 1e-2));
  }
  owners.make_weights_whole();
  out.weights = tiny.weights();
  for (const models::Parameter& p : parameters.unique()) out.working.push_back(p.working.detach());
  return out;
}

void expect_equal(const Outcome& got, const Outcome& one, const std::string& what) {
  for (size_t s = 0; s < one.stats.size(); ++s) {
    EXPECT_EQ(got.stats[s].loss, one.stats[s].loss) << what;
    EXPECT_EQ(got.stats[s].gradient_norm, one.stats[s].gradient_norm) << what;
  }
  for (size_t i = 0; i < one.weights.size(); ++i) {
    EXPECT_TRUE(testing::same_bits(got.weights[i], one.weights[i])) << what << ": " << i;
    EXPECT_TRUE(testing::same_bits(got.working[i], one.working[i])) << what << ": " << i;
  }
}

}  // namespace

// In both dtypes: what a rank trains on, sums, owns and shares.
TEST(Owners, StepsOfAModelHaveTheBitsOfOneRank) {
  const testing::Threads one_thread(1);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Outcome one = steps(*comm::make_self_comm(), 6, dtype, Divided::kNothing);
    EXPECT_LT(one.stats.back().loss, one.stats.front().loss);
    for (const Divided kind : {Divided::kMoments, Divided::kGradients, Divided::kParameters})
      for (const int ranks : {2, 3, 6})
        comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
          expect_equal(steps(comm, 6 / ranks, dtype, kind), one, fmt::format("{} ranks", ranks));
        });
  }
}

// Ranks of several groups, each of which divides all: their shares of a step's micro-batches are runs of any length.
TEST(Owners, GroupsThatDivideHaveTheBitsOfOneRank) {
  const testing::Threads one_thread(1);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Outcome one = steps(*comm::make_self_comm(), 12, dtype, Divided::kNothing);
    for (const Divided kind : {Divided::kMoments, Divided::kGradients, Divided::kParameters})
      for (const auto& [ranks, replicas] :
           std::vector<std::pair<int, int64_t>>{{4, 2}, {6, 2}, {6, 3}, {4, 4}})
        comm::run_thread_ranks(ranks, [&, ranks = ranks, replicas = replicas](comm::Comm& comm) {
          expect_equal(steps(comm, 12 / ranks, dtype, kind, replicas), one,
                       fmt::format("{} ranks in {} groups", ranks, replicas));
        });
  }
}

}  // namespace retort::train
