#include "train/owners.h"

#include <gtest/gtest.h>

#include <mutex>

#include "core/error.h"
#include "kernels/gradient_norm.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/optimizer_state.h"
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
    add("scale", {517, 1}, Role::kScale);
    add("one", {900, 100}, Role::kMatrix).placement.owned.step = 900;
    add("bias", {3}, Role::kBias);
    fill(seed);
  }
  models::Parameter& add(const char* name, std::vector<int64_t> shape, Role role) {
    return parameters.add(name, shape, role);
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

}  // namespace

TEST(Owners, EveryBlockHasOneOwnerAndTheLoadIsEven) {
  for (const int ranks : {1, 2, 3, 4, 5, 8}) {
    std::mutex mutex;
    std::vector<std::vector<models::RowBlocks>> owned(static_cast<size_t>(ranks));
    on_ranks(ranks, [&](comm::Comm& comm) {
      Mixed mixed;
      const Owners owners(mixed.parameters, comm, true);
      EXPECT_EQ(owners.divided(), ranks > 1);
      const std::lock_guard lock(mutex);
      for (const models::Parameter& p : mixed.parameters.unique())
        owned[static_cast<size_t>(comm.rank())].push_back(p.placement.owned);
    });
    const Mixed whole;
    std::vector<int64_t> elements(static_cast<size_t>(ranks));
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
    for (const int64_t mine : elements) EXPECT_LE(std::abs(mine - all / ranks), largest) << ranks;
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
  for (const int ranks : {1, 2, 3, 4, 8}) {
    std::mutex mutex;
    uint64_t most_bytes = 0;
    on_ranks(ranks, [&](comm::Comm& comm) {
      Mixed mixed;
      const Owners owners(mixed.parameters, comm, true);
      const auto mine = make_optimizer({}, mixed.parameters);
      for (uint64_t step = 0; step < 3; ++step) {
        mixed.gradients = Mixed(step).gradients;
        EXPECT_EQ(kernels::norm_of(owners.of_all_blocks(norm_of_blocks(mixed))), norms[step]);
        mine->step(mixed.parameters, mixed.gradients, 1e-2);
        owners.share_masters();
      }
      for (const models::Parameter& p : mixed.parameters.unique())
        EXPECT_TRUE(testing::same_bits(p.master, expected.parameters.at(p.name).master)) << p.name;
      const OptimizerState state(*mine, &owners, comm);
      uint64_t bytes = 0;
      for (const auto& [name, tensor] : mine->state()) bytes += tensor.nbytes();
      if (comm.rank() == 0) {
        for (const auto& [name, tensor] : state.tensors()) {
          const at::Tensor got = tensor.is_meta() ? state.fetch(name) : tensor;
          for (const auto& [other, values] : optimizer->state())
            if (other == name) {
              EXPECT_TRUE(testing::same_bits(got, values)) << name;
            }
        }
        state.finish();
      } else {
        state.serve();
      }
      const std::lock_guard lock(mutex);
      most_bytes = std::max(most_bytes, bytes);
    });
    const uint64_t largest_block = 2 * 4 * 900 * 100;
    EXPECT_LE(most_bytes, whole_bytes / static_cast<uint64_t>(ranks) + largest_block) << ranks;
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
    const Owners owners(mixed.parameters, comm, true);
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

}  // namespace retort::train
