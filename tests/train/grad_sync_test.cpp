#include "train/grad_sync.h"

#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <cmath>
#include <utility>

#include "comm/bootstrap.h"
#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/random.h"
#include "tests/plan/counted_tensors.h"
#include "tests/testing.h"
#include "train/micro_batches.h"
#include "train/scattered_sum.h"

namespace retort::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Gradients = std::vector<at::Tensor>;

constexpr int64_t V = 11, D = 7, F = 13;

void add_random(models::Parameters& parameters, const std::string& name, at::IntArrayRef shape,
                at::ScalarType dtype = at::kFloat) {
  models::Parameter& p = parameters.add(name, shape, models::Role::kMatrix);
  Random(3, "init/" + name).fill_normal(p.master, 0.5);
  p.working = p.master.to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
}

// A byte-sized language model with all that a GradSync may meet: a table used at both ends, a bias, odd
// sizes, a parameter that half of the micro-batches use, one whose gradient is -0, and one that nobody uses.
struct TinyParameters : models::Parameters {
  explicit TinyParameters(at::ScalarType dtype = at::kFloat) {
    add_random(*this, "embed", {V, D}, dtype);
    add_random(*this, "up", {F, D}, dtype);
    add_random(*this, "bias", {F});
    add_random(*this, "down", {D, F}, dtype);
    add_random(*this, "sometimes", {D});
    add_random(*this, "minus_zero", {3});
    add_random(*this, "unused", {5});
  }
};

// The summed loss of a global micro-batch; their lengths differ.
at::Tensor tiny_loss(models::Parameters& parameters, int64_t micro_batch) {
  const auto p = [&](size_t i) { return parameters.unique()[i].working; };
  const Random random(9, "tokens", 0, static_cast<uint64_t>(micro_batch));
  const int64_t T = 5 + micro_batch % 3;
  const at::Tensor tokens_T = at::empty({T}, at::kLong), labels_T = at::empty({T}, at::kLong);
  for (int64_t t = 0; t < T; ++t) {
    tokens_T[t] = static_cast<int64_t>(random.below(2 * t, V));
    labels_T[t] = static_cast<int64_t>(random.below(2 * t + 1, V));
  }
  at::Tensor h_TD = p(0).index_select(0, tokens_T);
  if (micro_batch % 2 == 1) h_TD = h_TD * p(4).to(h_TD.scalar_type());
  const at::Tensor a_TF = at::silu(at::matmul(h_TD, p(1).t()) + p(2).to(h_TD.scalar_type()));
  const at::Tensor logits_TV = at::matmul(h_TD + at::matmul(a_TF, p(3).t()), p(0).t()).to(at::kFloat);
  const at::Tensor loss = -at::log_softmax(logits_TV, 1).gather(1, labels_T.unsqueeze(1)).sum();
  return micro_batch == 0 ? loss + (p(5) * -0.0).sum() : loss;
}

Gradients copies(const Gradients& gradients) {
  Gradients out;
  for (const at::Tensor& g : gradients) out.push_back(g.clone());
  return out;
}

Gradients run_step(models::Parameters& parameters, GradSync& sync, int64_t first, int64_t micro_batches) {
  sync.begin_step();
  for (int64_t g = 0; g < micro_batches; ++g) {
    sync.begin_micro_batch(g);
    tiny_loss(parameters, first + g).backward();
    sync.end_micro_batch(g);
  }
  return copies(sync.finish());
}

// Every rank's gradients of `ranks` x `each` micro-batches, which must be equal; returns one.
Gradients run_split(int ranks, int64_t each, at::ScalarType dtype = at::kFloat, int64_t bucket_bytes = 256) {
  std::vector<Gradients> of_rank(ranks);
  comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
    TinyParameters parameters(dtype);
    GradSync sync(parameters, comm, each, bucket_bytes);
    of_rank[comm.rank()] = run_step(parameters, sync, comm.rank() * each, each);
  });
  for (const Gradients& gradients : of_rank)
    for (size_t i = 0; i < gradients.size(); ++i)
      EXPECT_TRUE(testing::same_bits(gradients[i], of_rank[0][i]));
  return of_rank[0];
}

// The same with gradients divided among the ranks, put together from their rows.
Gradients run_scattered(comm::Comm& comm, int64_t each, at::ScalarType dtype, int64_t bucket_bytes) {
  TinyParameters parameters(dtype);
  for (models::Parameter& p : parameters.unique()) p.placement.owned.step = 2;  // all of it would be a block
  const Owners owners(parameters, comm, Divided::kGradients);
  const MicroBatches numbers(comm, each, &owners);
  GradSync sync(parameters, comm, each, bucket_bytes, &owners);
  Gradients got;
  for (int step = 0; step < 2; ++step) {  // the second finds all as the first did
    sync.begin_step();
    for (int64_t g = 0; g < each; ++g) {
      sync.begin_micro_batch(g);
      tiny_loss(parameters, numbers.number(g)).backward();
      sync.end_micro_batch(g);
    }
    got = copies(sync.finish());
  }
  for (size_t i = 0; i < got.size(); ++i) {
    const models::Parameter& p = parameters.unique()[i];
    const at::Tensor whole = at::zeros(p.shape);
    EXPECT_EQ(got[i].size(0), p.placement.owned.end - p.placement.owned.begin) << p.name;
    owned(p, whole).copy_(got[i]);
    comm.all_reduce(whole, comm::Reduce::kMax).wait();
    const at::Tensor least = at::zeros(p.shape);
    owned(p, least).copy_(got[i]);
    comm.all_reduce(least, comm::Reduce::kMin).wait();
    got[i] = at::where(whole == 0, least, whole);
  }
  return got;
}

struct AddTensors {
  at::Tensor operator()(at::Tensor left, at::Tensor right) const { return left + right; }
};

// The same without GradSync: plain backward, then the tree.
Gradients reference(int64_t micro_batches, at::ScalarType dtype = at::kFloat) {
  TinyParameters parameters(dtype);
  std::vector<comm::TreeSum<at::Tensor, AddTensors>> trees(parameters.unique().size());
  for (int64_t g = 0; g < micro_batches; ++g) {
    tiny_loss(parameters, g).backward();
    for (size_t i = 0; i < trees.size(); ++i) {
      at::Tensor& gradient = parameters.unique()[i].working.mutable_grad();
      trees[i].push(gradient.defined() ? gradient.to(at::kFloat)
                                       : at::zeros_like(parameters.unique()[i].master));
      gradient.reset();
    }
  }
  Gradients out;
  for (auto& tree : trees) out.push_back(tree.finish());
  return out;
}

void expect_same(const Gradients& got, const Gradients& expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_TRUE(testing::same_bits(got[i], expected[i])) << what << ": parameter " << i;
}

// A group of two whose other rank contributes nothing; it writes down what is started.
class RecordingComm final : public comm::Comm {
 public:
  explicit RecordingComm(std::vector<std::string>& events) : events_(events) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string name() const override { return "recording"; }
  comm::Pending all_reduce(at::Tensor, comm::Reduce) override { return {}; }
  comm::Pending sum_tree(at::Tensor nodes_PN, int64_t) override {
    events_.push_back("reduce " + std::to_string(nodes_PN.numel()));
    return {};
  }
  comm::Pending broadcast(at::Tensor, int) override { return {}; }
  comm::Pending all_gather(at::Tensor, at::Tensor) override { return {}; }
  comm::Pending all_to_all(std::vector<at::Tensor>, at::Tensor, std::vector<int64_t>) override { return {}; }
  comm::Pending exchange(std::vector<at::Tensor>, std::vector<at::Tensor>) override { return {}; }
  std::shared_ptr<Comm> subgroup(const std::vector<int>&) override { throw InternalError("none here"); }
  void barrier() override {}
  [[noreturn]] void abort(const std::string& why, int) override { throw InternalError(why); }

 private:
  std::vector<std::string>& events_;
};

// The identity, with something to do on the way back.
struct OnBackward : torch::autograd::Function<OnBackward> {
  using Action = std::function<void()>;
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, int64_t action) {
    context->saved_data["action"] = action;
    return x.clone();
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               const torch::autograd::tensor_list& gradients) {
    (*reinterpret_cast<const Action*>(context->saved_data["action"].toInt()))();
    return {gradients[0], at::Tensor()};
  }
};
at::Tensor on_backward(const at::Tensor& x, const OnBackward::Action& action) {
  return OnBackward::apply(x, reinterpret_cast<int64_t>(&action));
}

}  // namespace

TEST(GradSync, IsTheTreeOverMicroBatchesHoweverTheyAreSplit) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t micro_batches : {4, 6, 12, 15, 24, 35, 56}) {
      const Gradients expected = reference(micro_batches, dtype);
      for (int64_t ranks = 1; ranks <= 8; ++ranks)
        if (micro_batches % ranks == 0)
          expect_same(run_split(static_cast<int>(ranks), micro_batches / ranks, dtype), expected,
                      fmt::format("{} x {}", ranks, micro_batches / ranks));
    }
  }
  // The order is visible in these bits: a running sum differs.
  TinyParameters parameters;
  for (int64_t g = 0; g < 12; ++g) tiny_loss(parameters, g).backward();
  EXPECT_FALSE(testing::same_bits(parameters.unique()[0].working.grad(), reference(12)[0]));
}

TEST(GradSync, BucketsOfAnySizeGiveTheSame) {
  const Gradients expected = reference(4);
  for (int64_t bucket_bytes : {1, 100, 1 << 20})
    expect_same(run_split(2, 2, at::kFloat, bucket_bytes), expected, "");
}

TEST(GradSync, ParametersWithoutAGradientCountAsZeros) {
  for (int ranks : {1, 2, 4}) {
    const Gradients got = run_split(ranks, 4 / ranks);
    EXPECT_TRUE(testing::same_bits(got[6], at::zeros({5}))) << ranks;  // unused
    EXPECT_TRUE(testing::same_bits(got[5], at::zeros({3}))) << ranks;  // -0 once, zeros else: +0
    EXPECT_GT(got[4].abs().max().item<float>(), 0.0f);                 // sometimes
  }
}

TEST(GradSync, StepsAreIndependentAndLeaveNoGradientBehind) {
  const auto self = comm::make_self_comm();
  TinyParameters parameters;
  GradSync sync(parameters, *self, 2);
  run_step(parameters, sync, 6, 2);
  parameters.unique()[1].working.mutable_grad() = at::ones({F, D});  // somebody else's: not counted
  expect_same(run_step(parameters, sync, 0, 2), reference(2), "second step");
  for (const models::Parameter& p : parameters.unique()) EXPECT_FALSE(p.working.grad().defined()) << p.name;
}

TEST(GradSync, Fault32UnevenMicroBatchesEqualOneBigBatch) {
  TinyParameters parameters;
  at::Tensor sum;
  for (int64_t g = 0; g < 4; ++g) sum = g ? sum + tiny_loss(parameters, g) : tiny_loss(parameters, g);
  sum.backward();
  const Gradients got = run_split(4, 1);
  for (size_t i = 0; i < 5; ++i)  // about 24 rows of f32 additions in another order
    EXPECT_LT(testing::relative_error(got[i], parameters.unique()[i].working.grad()), 24 * 0x1p-23) << i;
}

TEST(GradSync, BucketsStartWhileBackwardRunsInOrderAndInTheLastMicroBatchOnly) {
  models::Parameters parameters;
  for (int64_t layer = 0; layer < 3; ++layer)
    add_random(parameters, "w" + std::to_string(layer), {4, 4 + layer});
  std::vector<std::string> events;
  RecordingComm comm(events);
  GradSync sync(parameters, comm, 2, 1);  // a bucket each: 16, 20 and 24 elements
  std::vector<OnBackward::Action> actions;
  for (int layer = 0; layer < 3; ++layer)
    actions.push_back([&events, layer] { events.push_back("input of layer " + std::to_string(layer)); });
  sync.begin_step();
  for (int64_t g = 0; g < 2; ++g) {
    events.push_back("micro-batch");
    sync.begin_micro_batch(g);
    at::Tensor x = at::ones({2, 4}).requires_grad_();
    for (size_t layer = 0; layer < 3; ++layer)
      x = at::matmul(on_backward(x, actions[layer]), parameters.unique()[layer].working).slice(1, 0, 4);
    x.sum().backward();
    events.push_back("backward done");
    sync.end_micro_batch(g);
  }
  sync.finish();
  EXPECT_THAT(events, ElementsAre("micro-batch", "input of layer 2", "input of layer 1", "input of layer 0",
                                  "backward done",  //
                                  "micro-batch", "reduce 24", "input of layer 2", "reduce 20",
                                  "input of layer 1", "reduce 16", "input of layer 0", "backward done"));
}

TEST(GradSync, ABucketWaitsForThoseBeforeIt) {
  models::Parameters parameters;
  for (int64_t i = 0; i < 3; ++i) add_random(parameters, "p" + std::to_string(i), {i + 1});
  std::vector<std::string> events;
  RecordingComm comm(events);
  GradSync sync(parameters, comm, 1, 1);
  sync.begin_step();
  sync.begin_micro_batch(0);
  (parameters.unique()[0].working.sum() + parameters.unique()[1].working.sum()).backward();  // p2 stays out
  EXPECT_THAT(events, ElementsAre());
  sync.end_micro_batch(0);
  EXPECT_THAT(events, ElementsAre("reduce 3", "reduce 2", "reduce 1"));
}

TEST(GradSync, GradientsThatShareMemoryArePulledApart) {
  const auto self = comm::make_self_comm();
  models::Parameters parameters;
  add_random(parameters, "flat", {6});
  add_random(parameters, "tall", {3, 2});
  for (int64_t micro_batches : {1, 2}) {
    GradSync sync(parameters, *self, micro_batches);
    sync.begin_step();
    for (int64_t g = 0; g < micro_batches; ++g) {
      sync.begin_micro_batch(g);
      const at::Tensor c = at::arange(6, at::kFloat).view({2, 3});
      ((parameters.unique()[0].working.view({2, 3}) + parameters.unique()[1].working.view({2, 3})) * c)
          .sum()
          .backward();
      sync.end_micro_batch(g);
    }
    for (const at::Tensor& gradient : sync.finish()) gradient.mul_(10);  // as clipping does
    for (const at::Tensor& gradient : sync.finish())
      EXPECT_TRUE(gradient.view(-1).eq(at::arange(6, at::kFloat) * 10 * micro_batches).all().item<bool>());
  }
}

TEST(GradSync, AnExceptionInBackwardOnOneRankEndsTheOthers) {
  std::atomic<int> told = 0;
  const OnBackward::Action torn = [] { throw DataError("shard 7 is torn"); };
  const auto run = [&] {
    comm::run_thread_ranks(3, [&](comm::Comm& comm) {
      TinyParameters parameters;
      GradSync sync(parameters, comm, 1, 64);
      sync.begin_step();
      sync.begin_micro_batch(0);
      const at::Tensor loss = tiny_loss(parameters, comm.rank());
      (comm.rank() == 1 ? on_backward(loss, torn) : loss).backward();
      sync.end_micro_batch(0);
      try {
        sync.finish();
      } catch (const CommError& error) {
        told += std::string(error.what()).find("rank 1 failed: shard 7 is torn") != std::string::npos;
        throw;
      }
    });
  };
  EXPECT_THAT(run, ThrowsMessage<DataError>("shard 7 is torn"));
  EXPECT_EQ(told, 2);
}

TEST(GradSync, SaysWhatItsCallerGotWrong) {
  const auto self = comm::make_self_comm();
  TinyParameters parameters;
  EXPECT_THROW(GradSync(parameters, *self, 0), ConfigError);
  GradSync sync(parameters, *self, 2);
  sync.begin_step();
  EXPECT_THROW(sync.begin_micro_batch(1), InternalError);
  sync.begin_micro_batch(0);
  EXPECT_THROW(sync.begin_micro_batch(0), InternalError);
  tiny_loss(parameters, 0).backward();
  EXPECT_THAT([&] { tiny_loss(parameters, 1).backward(); },
              ThrowsMessage<InternalError>(HasSubstr("second gradient in one micro-batch")));
  EXPECT_THROW(sync.end_micro_batch(1), InternalError);
  EXPECT_THAT([&] { sync.finish(); },
              ThrowsMessage<InternalError>(HasSubstr("0 of 2 micro-batches are done")));
  // begin_step starts over.
  expect_same(run_step(parameters, sync, 0, 2), reference(2), "after an error");
}

TEST(GradSync, TakesGradientsOnlyDuringItsMicroBatches) {
  const auto self = comm::make_self_comm();
  TinyParameters parameters;
  const auto leaves_gradients = [&] {
    tiny_loss(parameters, 0).backward();
    return std::exchange(parameters.unique()[0].working.mutable_grad(), at::Tensor()).defined();
  };
  auto sync = std::make_unique<GradSync>(parameters, *self, 1);
  EXPECT_TRUE(leaves_gradients());
  auto younger = std::make_unique<GradSync>(parameters, *self, 1);
  sync.reset();  // must not take the younger one's hooks along
  younger->begin_step();
  younger->begin_micro_batch(0);
  EXPECT_FALSE(leaves_gradients());
  younger.reset();
  EXPECT_TRUE(leaves_gradients());
}

// A frozen parameter is no part of the reduction, and the others' gradients do not notice.
TEST(GradSync, AFrozenParameterHasNoGradient) {
  const Gradients all = run_split(1, 4);
  for (const int ranks : {1, 2, 4}) {
    comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
      TinyParameters parameters;
      for (const size_t i : {size_t{1}, size_t{6}}) parameters.unique()[i].freeze();
      const int64_t each = 4 / ranks;
      GradSync sync(parameters, comm, each, 256);
      for (int step = 0; step < 2; ++step) {
        sync.begin_step();
        for (int64_t g = 0; g < each; ++g) {
          sync.begin_micro_batch(g);
          tiny_loss(parameters, comm.rank() * each + g).backward();
          sync.end_micro_batch(g);
        }
        const Gradients& got = sync.finish();
        ASSERT_EQ(got.size(), all.size());
        for (size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(got[i].defined(), i != 1 && i != 6) << i;
          if (got[i].defined()) {
            EXPECT_TRUE(testing::same_bits(got[i], all[i])) << ranks << " ranks: " << i;
          }
        }
      }
    });
  }
}

TEST(GradSync, RefusesAWorkingCopyThatIsNeitherTrainedNorFrozen) {
  const auto self = comm::make_self_comm();
  TinyParameters parameters;
  parameters.unique()[3].working.requires_grad_(false);
  EXPECT_THROW(GradSync(parameters, *self, 1), InternalError);
}

// Whatever the ranks, their micro-batches and the buckets: a rank's rows of the tree over all.
TEST(GradSync, DividedGradientsAreTheSameTree) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t micro_batches : {4, 6, 12, 15}) {
      const Gradients expected = reference(micro_batches, dtype);
      for (int ranks = 2; ranks <= 6; ++ranks)
        for (const int64_t bucket_bytes : {1, 300, 1 << 20}) {
          if (micro_batches % ranks != 0) continue;
          comm::run_thread_ranks(ranks, [&](comm::Comm& comm) {
            expect_same(
                run_scattered(comm, micro_batches / ranks, dtype, bucket_bytes), expected,
                fmt::format("{} micro-batches on {} ranks, {} bytes", micro_batches, ranks, bucket_bytes));
          });
        }
    }
}

// What the next pass overwrites is copied once: a gradient that becomes f32 for the sum is copied by that.
TEST(GradSync, CopiesOnceWhatAPassByItselfMade) {
  thread_local int64_t clones = 0;
  const auto note = [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
    clones += std::string(call.name()) == "aten::clone" ? 1 : 0;
    return nullptr;
  };
  for (const Divided kind : {Divided::kNothing, Divided::kGradients})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      comm::run_thread_ranks(2, [&](comm::Comm& comm) {
        models::Parameters parameters;
        add_random(parameters, "w", {8, 5}, dtype);
        const Owners owners(parameters, comm, kind);
        GradSync sync(parameters, comm, 2, 1 << 20, &owners);
        sync.begin_step();
        const at::CallbackHandle handle =
            at::addThreadLocalCallback(at::RecordFunctionCallback(note).scopes({at::RecordScope::FUNCTION}));
        clones = 0;
        for (int64_t g = 0; g < 2; ++g) {
          const at::Tensor made = at::full({8, 5}, 1 + g, dtype);
          sync.add_micro_batch(g, {{0, made}});
          if (g == 0) made.fill_(NAN);
        }
        at::removeCallback(handle);
        EXPECT_EQ(clones, kind == Divided::kNothing && dtype == at::kBFloat16 ? 0 : 1)
            << static_cast<int>(kind) << " " << dtype;
        const at::Tensor sum = sync.finish()[0];
        EXPECT_TRUE(sum.eq(2 * (1 + 2)).all().item<bool>()) << sum;
      });
}

// Of sixteen matrices that are used one after the other, two micro-batches on each of four ranks.
TEST(GradSync, DividedGradientsTakeLess) {
  const auto most = [](Divided kind) {
    std::unique_ptr<testing::CountedTensors> counted;
    int64_t peak = 0;
    comm::run_thread_ranks(4, [&](comm::Comm& comm) {
      models::Parameters parameters;
      for (int i = 0; i < 16; ++i) add_random(parameters, "w" + std::to_string(i), {1024, 64});
      const Owners owners(parameters, comm, kind);
      comm.barrier();
      if (comm.rank() == 0) counted = std::make_unique<testing::CountedTensors>();
      comm.barrier();
      {
        GradSync sync(parameters, comm, 2, 1 << 18, &owners);
        sync.begin_step();
        for (int64_t g = 0; g < 2; ++g) {
          sync.begin_micro_batch(g);
          at::Tensor x = at::ones({1, 64});
          for (const models::Parameter& p : parameters.unique())
            x = at::matmul(x, p.working.t()).slice(1, 0, 64);
          x.sum().backward();
          sync.end_micro_batch(g);
        }
        sync.finish();
        comm.barrier();
      }
      if (comm.rank() == 0) peak = counted->peak();
      comm.barrier();
      if (comm.rank() == 0) counted.reset();
      comm.barrier();
    });
    return static_cast<double>(peak);
  };
  const double all = 4 * 16 * 4.0 * 1024 * 64;  // f32 of every rank
  EXPECT_GT(most(Divided::kMoments), 1.5 * all) << "the local sums, and the buckets";
  EXPECT_LT(most(Divided::kGradients), 0.85 * all) << "a quarter, and buckets of two sixteenths under way";
}

// Each of eight ranks owns a whole bucket, which comes from all of them: no more is there at once than the gradient, its
// sum, and two pieces of a bucket's bytes.
TEST(GradSync, AnOwnerReceivesNoMoreThanABucketAtOnce) {
  constexpr int64_t kBucket = 1 << 20;
  const testing::CountedTensors counted;
  comm::run_thread_ranks(8, [&](comm::Comm& comm) {
    testing::CountedTensors::OfThread own;
    models::Parameters parameters;
    for (int i = 0; i < 8; ++i) add_random(parameters, "w" + std::to_string(i), {4096, 64});
    const Owners owners(parameters, comm, Divided::kGradients);
    GradSync sync(parameters, comm, 1, kBucket, &owners);
    own.begin();
    const int64_t before = own.peak();
    sync.begin_step();
    sync.begin_micro_batch(0);
    at::Tensor x = at::ones({1, 64});
    for (const models::Parameter& p : parameters.unique()) x = at::matmul(x, p.working.t()).slice(1, 0, 64);
    x.sum().backward();
    sync.end_micro_batch(0);
    sync.finish();
    EXPECT_LT(static_cast<double>(own.peak() - before), 5.5 * kBucket);
  });
}

// A learned scale has no gradient from backward, and no bucket waits for it.
TEST(GradSync, AScaleHoldsUpNoBucket) {
  comm::run_thread_ranks(2, [](comm::Comm& comm) {
    models::Parameters parameters;
    add_random(parameters, "w", {6, 4});
    models::Parameter& scale = parameters.add("w_scale", {6, 1}, models::Role::kScale);
    scale.working = scale.master.detach().requires_grad_();
    for (models::Parameter& p : parameters.unique()) p.placement.owned.step = 1;
    const Owners owners(parameters, comm, Divided::kGradients);
    GradSync sync(parameters, comm, 1, 1, &owners);
    sync.begin_step();
    sync.begin_micro_batch(0);
    (parameters.unique()[0].working * (comm.rank() + 1.0)).sum().backward();
    sync.end_micro_batch(0);
    const Gradients& got = sync.finish();
    EXPECT_TRUE(testing::same_bits(got[0], at::full({3, 4}, 3.0)));
    EXPECT_TRUE(testing::same_bits(got[1], at::zeros({3, 1})));
  });
}

// Under mpirun (label mpi).
TEST(MpiGradSync, GivesTheBitsOfThreadRanks) {
  if (!comm::mpi_missing().empty() || !comm::mpi_launcher(comm::process_environment))
    GTEST_SKIP() << "not under mpirun";
  const comm::Started started = comm::start_comm();
  const int ranks = started.comm->size();
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    TinyParameters parameters(dtype);
    GradSync sync(parameters, *started.comm, 2, 256);
    const Gradients got = run_step(parameters, sync, started.comm->rank() * 2, 2);
    expect_same(got, run_split(ranks, 2, dtype), "threads");
    expect_same(got, run_split(1, 2 * ranks, dtype), "one rank");
    expect_same(run_scattered(*started.comm, 2, dtype, 256), got, "divided");
  }
}

}  // namespace retort::train
