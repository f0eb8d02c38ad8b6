#include "train/passing_comm.h"

#include <gmock/gmock.h>

#include "comm/together.h"
#include "core/error.h"
#include "models/initial_values.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/streamed_values.h"

namespace retort::train {
namespace {

using models::Parameter;
using ::testing::HasSubstr;

constexpr int64_t kPasses = 7;

models::DecoderSpec spec() {
  models::DecoderSpec out = tiny_spec();
  out.layers = 5;
  out.share_ffn = false;
  return out;
}

// A model of which each rank has rows.
struct DividedModel {
  models::Decoder model{spec()};
  models::IdentityMap map;
  std::unique_ptr<Owners> owners;
  DividedModel(at::ScalarType dtype, comm::Comm& comm, int64_t replicas = 1) {
    models::initialise(model.parameters(), "gpt2", 0.1, 5);
    models::bind_working(model.parameters(), map, dtype);
    for (Parameter& p : model.parameters().unique()) p.placement.owned.step = 3;
    owners = std::make_unique<Owners>(model.parameters(), comm, Divided::kParameters, &model, replicas);
    owners->divide_weights();
  }
};

// The sum of the hidden states of each pass, of one rank after another as many as its number says.
std::vector<double> sums_of(models::Model& model, comm::Comm& comm) {
  const at::NoGradGuard no_grad;
  const at::Tensor sums_P = at::zeros({kPasses}, at::kDouble);
  for (int64_t pass = 0, rank = 0, left = 0; pass < kPasses; ++pass) {
    while (left == 0) left = rank++ % comm.size();  // rank 0 has none
    --left;
    if ((rank - 1) % comm.size() != comm.rank()) continue;
    EXPECT_GT(model.head().weight_VD.size(0), 0);
    const at::Tensor h_BTD = model.hidden({.tokens_BT = tiny_batch(pass).tokens_BT});
    const at::Tensor logits = at::linear(h_BTD, model.head().weight_VD.to(at::kFloat));
    sums_P[pass] = logits.flatten().cumsum(0)[-1].to(at::kDouble);
  }
  comm.all_reduce(sums_P, comm::Reduce::kSum).wait();
  return {sums_P.data_ptr<double>(), sums_P.data_ptr<double>() + kPasses};
}

// Of whole f32 values, on one rank.
std::vector<double> expected() {
  models::Decoder model(spec());
  models::initialise(model.parameters(), "gpt2", 0.1, 5);
  const at::NoGradGuard no_grad;
  std::vector<double> out;
  for (int64_t pass = 0; pass < kPasses; ++pass) {
    const at::Tensor logits =
        at::linear(model.hidden({.tokens_BT = tiny_batch(pass).tokens_BT}), model.head().weight_VD);
    out.push_back(logits.flatten().cumsum(0)[-1].item<float>());
  }
  return out;
}

}  // namespace

// As many passes as a rank likes, none or several, of f32 values whatever the working weights are.
TEST(PassingComm, RanksGoThroughEachOthersPasses) {
  const testing::Threads one_thread(1);
  const std::vector<double> whole = expected();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [ranks, replicas] : std::vector<std::pair<int, int>>{{2, 1}, {3, 1}, {4, 2}})
      comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
        DividedModel divided(dtype, comm, replicas);
        const StreamedValues values(divided.model, divided.map, *divided.owners);
        for (int time = 0; time < 2; ++time) {
          PassingComm passing(values.weights(), comm);
          EXPECT_EQ(sums_of(values.model(), passing), whole);
        }
        if (dtype == at::kFloat) {  // the masters are what is multiplied
          PassingComm passing(*divided.owners->gathered(), comm);
          EXPECT_EQ(sums_of(divided.model, passing), whole);
        }
        EXPECT_EQ(values.weights().bytes(), 0);
        EXPECT_EQ(divided.owners->gathered()->bytes(), 0);
      });
}

// Two groups and a share: of a model in bf16 they are f32 values beside its own.
TEST(PassingComm, AnEvaluationNeedsTwoGroups) {
  comm::run_thread_ranks(3, [&](comm::Comm& comm) {
    DividedModel divided(at::kBFloat16, comm);
    const StreamedValues values(divided.model, divided.map, *divided.owners);
    PassingComm passing(values.weights(), comm);
    sums_of(values.model(), passing);
    const GatheredWeights& weights = values.weights();
    int64_t two = 0, all = 0;
    for (int64_t g = 0; g + 1 < spec().layers + 2; ++g) {
      two = std::max(two, weights.bytes_of(g) + weights.bytes_of(g + 1));
      all += weights.bytes_of(g);
    }
    EXPECT_LE(weights.most_bytes(), two);
    EXPECT_LT(two, all);
    for (const Parameter& p : values.model().parameters().unique()) EXPECT_TRUE(p.master.is_meta()) << p.name;
  });
}

// In the middle of a pass: the others end theirs, and all hear of it.
TEST(PassingComm, AFailureInAPassIsEveryones) {
  comm::run_thread_ranks(3, [&](comm::Comm& comm) {
    DividedModel divided(at::kFloat, comm);
    PassingComm passing(*divided.owners->gathered(), comm);
    if (comm.rank() == 1)
      divided.model.parameters().at("layers.2.ffn.up.weight").observer = [](const at::Tensor&) {
        fail<DataError>("no such input");
      };
    const at::NoGradGuard no_grad;
    try {
      comm::together(passing, [&] {
        for (int pass = 0; pass < 3; ++pass) divided.model.hidden({.tokens_BT = tiny_batch(pass).tokens_BT});
      });
      ADD_FAILURE() << "rank " << comm.rank() << " heard nothing";
    } catch (const comm::SharedError& error) {
      EXPECT_THAT(error.what(), HasSubstr("rank 1: no such input"));
    }
    divided.model.parameters().at("layers.2.ffn.up.weight").observer = nullptr;
    EXPECT_EQ(sums_of(divided.model, passing), expected());
  });
}

}  // namespace retort::train
