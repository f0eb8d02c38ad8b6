// Ranks that have a device each: collectives through host memory, and training that is the CPU's.
#include <gtest/gtest.h>

#include "comm/staged_comm.h"
#include "comm/tree_sum.h"
#include "tests/fake_device/training.h"
#include "tests/train/tiny_run.h"

namespace retort::testing {
namespace {

at::Tensor numbers_of(int rank, int64_t count = 12) {
  return at::arange(count, at::kFloat) * (1 + rank) + 0.1f * static_cast<float>(rank);
}

// Each collective on tensors of devices, and on the host's beside it.
TEST(RanksOnDevices, CollectivesAreTheHosts) {
  comm::run_thread_ranks(3, [](comm::Comm& host) {
    const auto staged = comm::make_staged_comm(host);
    const at::Device there = fake_device(host.rank());
    const auto both = [&](const char* what, const std::function<at::Tensor(comm::Comm&, at::Device)>& f) {
      const at::Tensor got = f(*staged, there), want = f(host, at::kCPU), mixed = f(*staged, at::kCPU);
      EXPECT_EQ(got.device(), there) << what;
      EXPECT_TRUE(same_bits(got.cpu(), want)) << what;
      EXPECT_TRUE(same_bits(mixed, want)) << what;
    };
    both("all_reduce", [](comm::Comm& c, at::Device d) {
      const at::Tensor x = numbers_of(c.rank()).to(d).clone();
      c.all_reduce(x, comm::Reduce::kSum).wait();
      return x;
    });
    both("sum_tree", [](comm::Comm& c, at::Device d) {
      const at::Tensor x = numbers_of(c.rank(), 24).view({2, 12}).to(d).clone();
      RETORT_ASSERT(comm::most_subtrees(3, c.size()) == 2);
      c.sum_tree(x, 3).wait();
      return x[0];
    });
    both("broadcast", [](comm::Comm& c, at::Device d) {
      const at::Tensor x = numbers_of(c.rank()).to(d).clone();
      c.broadcast(x, 1).wait();
      return x;
    });
    both("all_gather", [](comm::Comm& c, at::Device d) {
      const at::Tensor out = at::empty({3, 12}, at::TensorOptions(d));
      c.all_gather(out, numbers_of(c.rank()).to(d)).wait();
      return out;
    });
    both("all_to_all", [](comm::Comm& c, at::Device d) {
      const std::vector<int64_t> bounds{0, 3, 7, 12};
      const auto mine = static_cast<size_t>(c.rank());
      std::vector<at::Tensor> out;
      for (int peer = 0; peer < 3; ++peer)
        out.push_back(at::empty({bounds[mine + 1] - bounds[mine]}, at::TensorOptions(d)));
      c.all_to_all(out, numbers_of(c.rank()).to(d), bounds).wait();
      return at::stack(out);
    });
  });
}

// Whole runs with every division of what ranks own: checkpoints of the same bytes, whatever the division; and the CPU's but
// for rounding.
TEST(RanksOnDevices, ARunIsTheCpusHoweverItIsDivided) {
  const auto run_of = [](at::Device device, train::Divided divided, const Path& directory) {
    train::TinyRun run;
    run.ranks = 2;
    run.options.steps = 6;
    run.device = device;
    run.divided = divided;
    run.measured = at::kBFloat16;
    return run(directory).final_loss;
  };
  const TemporaryDirectory whole, here;
  const double there = run_of(fake_device(), train::Divided::kNothing, whole.path()),
               usual = run_of(at::kCPU, train::Divided::kNothing, here.path());
  EXPECT_NEAR(there, usual, 1e-2 * usual);
  for (const train::Divided divided : {train::Divided::kMoments, train::Divided::kGradients}) {
    const TemporaryDirectory parts;
    EXPECT_EQ(run_of(fake_device(), divided, parts.path()), there);
    train::expect_same(whole.path(), parts.path());
  }
}

}  // namespace
}  // namespace retort::testing
