// Ranks that have a device each: collectives through host memory, and training that is the CPU's.
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>

#include <map>

#include "comm/device_comm.h"
#include "comm/staged_comm.h"
#include "comm/tree_sum.h"
#include "core/error.h"
#include "tests/fake_device/post_wire.h"
#include "tests/fake_device/training.h"
#include "tests/kernels/gradcheck.h"
#include "tests/models/tiny.h"
#include "tests/train/tiny_run.h"
#include "train/leaf_sum.h"
#include "train/micro_batches.h"
#include "train/scattered_sum.h"

namespace retort::testing {
namespace {

at::Tensor numbers_of(int rank, int64_t count = 12) {
  return at::arange(count, at::kFloat) * (1 + rank) + 0.1f * static_cast<float>(rank);
}

using Collective = std::function<at::Tensor(comm::Comm&, at::Device)>;

at::Tensor empty_on(at::Device device, std::vector<int64_t> shape) {
  return at::empty(shape, at::TensorOptions(device));
}

// On three ranks.
const std::map<std::string, Collective> kCollectives = {
    {"all_reduce",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = numbers_of(c.rank()).to(d).clone();
       c.all_reduce(x, comm::Reduce::kSum).wait();
       return x;
     }},
    {"all_reduce of bf16",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = numbers_of(c.rank(), 1000).to(at::kBFloat16).to(d).clone();
       c.all_reduce(x, comm::Reduce::kSum).wait();
       return x;
     }},
    {"all_reduce of a few",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = numbers_of(c.rank(), 2).to(d).clone();
       c.all_reduce(x, comm::Reduce::kSum).wait();
       return x;
     }},
    {"the highest, and what is no number",
     [](comm::Comm& c, at::Device d) {
       at::Tensor x = numbers_of(2 - c.rank());
       if (c.rank() == 1) x[4] = NAN;
       x = x.to(d).clone();
       c.all_reduce(x, comm::Reduce::kMax).wait();
       return x;
     }},
    {"the lowest of integers",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = (at::arange(7) * (1 - c.rank())).to(d).clone();
       c.all_reduce(x, comm::Reduce::kMin).wait();
       return x;
     }},
    {"sum_tree",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = numbers_of(c.rank(), 24).view({2, 12}).to(d).clone();
       RETORT_ASSERT(comm::most_subtrees(3, c.size()) == 2);
       c.sum_tree(x, 3).wait();
       return x[0];
     }},
    {"broadcast",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = numbers_of(c.rank()).to(d).clone();
       c.broadcast(x, 1).wait();
       return x;
     }},
    {"all_gather",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor out = empty_on(d, {3, 12});
       c.all_gather(out, numbers_of(c.rank()).to(d)).wait();
       return out;
     }},
    {"all_to_all",
     [](comm::Comm& c, at::Device d) {
       const std::vector<int64_t> bounds{0, 3, 7, 12};
       const auto mine = static_cast<size_t>(c.rank());
       std::vector<at::Tensor> out;
       for (int peer = 0; peer < 3; ++peer) out.push_back(empty_on(d, {bounds[mine + 1] - bounds[mine]}));
       c.all_to_all(out, numbers_of(c.rank()).to(d), bounds).wait();
       return at::stack(out);
     }},
    {"exchange",
     [](comm::Comm& c, at::Device d) {  // to the next rank, and to itself
       const auto mine = static_cast<size_t>(c.rank()), next = (mine + 1) % 3, last = (mine + 2) % 3;
       std::vector<at::Tensor> send(3), receive(3);
       send[mine] = numbers_of(c.rank(), 4).to(d), receive[mine] = empty_on(d, {4});
       send[next] = numbers_of(c.rank(), 5).to(d), receive[last] = empty_on(d, {5});
       c.exchange(send, receive).wait();
       return at::cat({receive[mine], receive[last]});
     }},
    {"a subgroup, the other way round",
     [](comm::Comm& c, at::Device d) {
       const at::Tensor x = numbers_of(c.rank(), 9).to(d).clone();
       if (c.rank() == 1) return x;
       const auto two = c.subgroup({2, 0});
       two->broadcast(x, 0).wait();
       two->all_reduce(x, comm::Reduce::kSum).wait();
       return x;
     }},
};

void expect_the_hosts(comm::Comm& of_devices, comm::Comm& host) {
  const at::Device there = fake_device(host.rank());
  for (const auto& [what, run] : kCollectives) {
    const at::Tensor got = run(of_devices, there), want = run(host, at::kCPU),
                     mixed = run(of_devices, at::kCPU);
    EXPECT_EQ(got.device(), there) << what;
    EXPECT_TRUE(same_bits(got.cpu(), want)) << what;
    EXPECT_TRUE(same_bits(mixed, want)) << what;
  }
}

TEST(RanksOnDevices, CollectivesThroughHostMemoryAreTheHosts) {
  comm::run_thread_ranks(3, [](comm::Comm& host) { expect_the_hosts(*comm::make_staged_comm(host), host); });
}

TEST(RanksOnDevices, CollectivesOverAWireAreTheHosts) {
  PostOffice office;
  comm::run_thread_ranks(3, [&](comm::Comm& host) {
    expect_the_hosts(*comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank())), host);
  });
}

// What differs is told when it is waited for.
TEST(RanksOnDevices, RanksThatCallOtherCollectivesAreTold) {
  using ::testing::HasSubstr, ::testing::ThrowsMessage;
  PostOffice office;
  comm::run_thread_ranks(2, [&](comm::Comm& host) {
    const auto comm = comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank()));
    const at::Tensor x = numbers_of(host.rank()).to(fake_device(host.rank())).clone();
    const comm::Pending pending =
        comm->all_reduce(x, host.rank() == 0 ? comm::Reduce::kSum : comm::Reduce::kMax);
    EXPECT_THAT(
        [&] { pending.wait(); },
        ThrowsMessage<CommError>(HasSubstr(
            host.rank() == 0
                ? "rank 0 all_reduce sum of 12 Float (number 0), rank 1 all_reduce max of 12 Float (number 0)"
                : "rank 1 all_reduce max of 12 Float (number 0), rank 0 all_reduce sum of 12 Float (number "
                  "0)")));
    EXPECT_THROW(comm->broadcast(x, 0), CommError);  // it has ended
  });
}

// Values of very unequal size: another order gives other bits.
at::Tensor unequal(int rank, at::IntArrayRef shape) {
  const auto seed = static_cast<uint64_t>(rank);
  return (normal(shape, seed) * normal(shape, seed + 100, 3.0).exp()).to(at::kFloat);
}

int64_t additions(const Traffic& traffic) {
  int64_t out = 0;
  for (const auto& [name, count] : traffic.operators)
    if (name.starts_with("aten::add")) out += count;
  return out;
}

// Where each rank has one row, all of them are added by one kernel on each rank; and however they are added, the bits are the
// host's. What is left over when ranks divide a row is the last one's.
TEST(RanksOnDevices, SumsOverAWireAreOneKernelARank) {
  for (int ranks = 1; ranks <= kFakeDevices; ++ranks)
    for (const int64_t leaves : {1, 2, 3})
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
        const std::string what = fmt::format("{} ranks, {} leaves, {}", ranks, leaves, c10::toString(dtype));
        PostOffice office;
        const Watch watch;
        comm::run_thread_ranks(ranks, [&](comm::Comm& host) {
          const auto comm = comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank()),
                                                   train::sum_leaves);
          const at::Tensor want = unequal(host.rank(), {comm::most_subtrees(leaves, ranks), 1013}).to(dtype);
          const at::Tensor got = want.to(fake_device(host.rank())).clone();
          host.sum_tree(want, leaves).wait();
          comm->sum_tree(got, leaves).wait();
          EXPECT_TRUE(same_bits(got[0].cpu(), want[0])) << what;
        });
        const Traffic traffic = watch.traffic();
        const bool kernel = ranks > 1 && leaves < 3 && dtype != at::kDouble;
        EXPECT_EQ(traffic.launches, kernel ? ranks : 0) << what;
        EXPECT_EQ(additions(traffic) == 0, kernel || (ranks == 1 && leaves < 3)) << what;
      }
}

// Of each turn's leaves, complete subtrees are added by one kernel; the sums are the host's.
TEST(RanksOnDevices, ScatteredSumsAreOneKernelASubtree) {
  constexpr int64_t kMicroBatches = 3;
  const auto sum_of = [](comm::Comm& comm, const at::Device& device, at::ScalarType dtype) {
    models::Parameters parameters;
    models::Parameter& weight = parameters.add("weight", {40, 33}, models::Role::kMatrix);
    weight.master.zero_();
    models::IdentityMap map;
    models::bind_working(parameters, map, dtype);
    models::move_to(parameters, device);
    weight.placement.owned.step = 3;
    const train::Owners owners(parameters, comm, train::Divided::kGradients);
    train::ScatteredSum sum({&weight}, owners, kMicroBatches, 1 << 20);
    sum.begin_step();
    for (int m = 0; m < kMicroBatches; ++m)
      sum.add(0, unequal(m * comm.size() + comm.rank(), weight.shape).to(dtype).to(device));
    return sum.finish().front();
  };
  const std::map<int, int64_t> launches{{2, 3}, {3, 3}, {4, 3}, {6, 6}};  // of a rank
  for (const auto& [ranks, expected] : launches)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const std::string what = fmt::format("{} ranks, {}", ranks, c10::toString(dtype));
      PostOffice office;
      const Watch watch;
      comm::run_thread_ranks(ranks, [&](comm::Comm& host) {
        const auto comm = comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank()));
        const at::Tensor got = sum_of(*comm, fake_device(host.rank()), dtype),
                         want = sum_of(host, at::kCPU, dtype);
        EXPECT_TRUE(same_bits(got.cpu(), want)) << what;
      });
      EXPECT_EQ(watch.traffic().launches, ranks * expected) << what;
    }
}

// Whole runs with every division of what ranks own, through host memory and over a wire: checkpoints of the same bytes,
// whatever the division; and the CPU's but for rounding.
TEST(RanksOnDevices, ARunIsTheCpusHoweverItIsDivided) {
  PostOffice office;
  const auto over_a_wire = [&](comm::Comm& host) {
    return comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank()), train::sum_leaves);
  };
  const auto run_of = [&](at::Device device, train::Divided divided, const Path& directory,
                          bool wired = false, int64_t replicas = 1) {
    train::TinyRun run;
    run.group_of_devices = [&, wired](comm::Comm& host) {
      c10::impl::VirtualGuardImpl(device.type()).setDevice(fake_device(host.rank()));  // as recipes do
      return wired ? over_a_wire(host) : comm::make_staged_comm(host);
    };
    run.figures = {{5, 1.0}, {6, 1.0}};  // a norm would be of the rows that a rank has
    run.ranks = static_cast<int>(2 * replicas);
    run.micro_batches = 2 / replicas;
    run.replicas = replicas;
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
  for (const train::Divided divided : {train::Divided::kNothing, train::Divided::kMoments,
                                       train::Divided::kGradients, train::Divided::kParameters})
    for (const bool wired : {false, true}) {
      const TemporaryDirectory parts;
      EXPECT_EQ(run_of(fake_device(), divided, parts.path(), wired), there);
      train::expect_same(whole.path(), parts.path());
    }
  for (const bool wired : {false, true}) {
    const TemporaryDirectory groups;
    EXPECT_EQ(run_of(fake_device(), train::Divided::kGradients, groups.path(), wired, 2), there);
    train::expect_same(whole.path(), groups.path());
  }
}

// --- steps of ranks that have a wire between them

constexpr train::Divided kDivisions[] = {train::Divided::kNothing, train::Divided::kMoments,
                                         train::Divided::kGradients, train::Divided::kParameters};

// Two steps of a rank, each of two micro-batches of all ranks.
struct Trained {
  std::vector<train::StepStats> steps;
  std::map<std::string, at::Tensor> masters;  // on the host
  std::vector<Traffic> all_traffic;           // of each step: of all ranks, but for its own reads
};

Trained train_on(comm::Comm& comm, const at::Device& device, const models::DecoderSpec& spec,
                 at::ScalarType dtype, train::Divided divided, const train::StepLimits& limits = {}) {
  const c10::DeviceGuard here(device);
  const auto model = random_model(spec);
  models::IdentityMap map;
  models::bind_working(model->parameters(), map, dtype);
  models::move_to(model->parameters(), device);
  for (models::Parameter& p : model->parameters().unique()) p.placement.owned.step = 8;
  train::Owners owners(model->parameters(), comm, divided, model.get());
  const auto objective = train::make_cross_entropy();
  const auto optimizer = train::make_optimizer({.lr = kLr, .eps = kEps}, model->parameters());
  owners.divide_weights();
  const int64_t each = 2 / comm.size();
  const train::MicroBatches numbers(comm, each, &owners);
  train::TrainStep step({.model = *model,
                         .map = map,
                         .objective = *objective,
                         .optimizer = *optimizer,
                         .comm = comm,
                         .owners = &owners,
                         .graphs = false},
                        each, kClip);
  Trained out;
  comm.barrier();  // until all have what they begin with
  for (int64_t s = 0; s < 2; ++s) {
    std::vector<data::Batch> batches;
    for (int64_t g = 0; g < each; ++g)
      batches.push_back(train::tiny_batch(s * numbers.all() + numbers.number(g)));
    const Watch watch;
    out.steps.push_back(step.run(s, batches, kLr, limits));
    out.all_traffic.push_back(watch.traffic());
  }
  comm.barrier();
  owners.make_weights_whole();
  for (const models::Parameter& p : model->parameters().unique()) out.masters[p.name] = p.master.cpu();
  return out;
}

void expect_same(const Trained& got, const Trained& want) {
  for (size_t s = 0; s < want.steps.size(); ++s) {
    EXPECT_EQ(got.steps[s].loss, want.steps[s].loss) << "step " << s;
    EXPECT_EQ(got.steps[s].gradient_norm, want.steps[s].gradient_norm) << "step " << s;
  }
  ASSERT_EQ(got.masters.size(), want.masters.size());
  for (const auto& [name, master] : want.masters)
    EXPECT_TRUE(same_bits(got.masters.at(name), master)) << name;
}

// Two ranks that divide what they own have the bits of one that does not, whose steps step_test.cpp and models_test.cpp
// hold to the CPU's.
TEST(RanksOnDevices, EveryFamilyHasTheBitsOfOneRankHoweverItIsDivided) {
  const Threads one_thread(1);
  for (const models::DecoderSpec& spec : tiny_families())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Trained alone =
          train_on(*comm::make_self_comm(), fake_device(), spec, dtype, train::Divided::kNothing);
      for (const train::Divided divided : kDivisions) {
        // Where masters are their own working copies, whole weights alone are another matter.
        if (dtype == at::kFloat && divided != train::Divided::kParameters) continue;
        PostOffice office;
        comm::run_thread_ranks(2, [&](comm::Comm& host) {
          SCOPED_TRACE(fmt::format("{} {} {}, divided {}, rank {}", spec.family, spec.rope_scaling.kind,
                                   c10::toString(dtype), static_cast<int>(divided), host.rank()));
          const auto comm = comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank()),
                                                   train::sum_leaves);
          expect_same(train_on(*comm, fake_device(host.rank()), spec, dtype, divided), alone);
        });
      }
    }
}

// Its own sums and figures, in one vector. Norm, and whether a step is left out, follow on the host from those of all ranks,
// and the verdict is sent without waiting.
TEST(RanksOnDevices, EachRankReadsOnceAStep) {
  const Threads one_thread(1);
  PostOffice office;
  const auto of_steps = [&](comm::Comm& comm, train::Divided divided, bool left_out) {
    train::StepLimits limits;
    if (left_out) limits.norm = 0.0;
    Trained got = train_on(comm, fake_device(comm.rank()), tiny_llama(), at::kBFloat16, divided, limits);
    for (const train::StepStats& step : got.steps) EXPECT_EQ(step.skipped, left_out);
    return got.all_traffic;
  };
  comm::run_thread_ranks(2, [&](comm::Comm& host) {
    const auto wired =
        comm::make_device_comm(host, std::make_unique<PostWire>(office, host.rank()), train::sum_leaves);
    for (const train::Divided divided : kDivisions)
      for (const bool left_out : {false, true})
        for (Traffic& traffic : of_steps(*wired, divided, left_out)) {
          SCOPED_TRACE(fmt::format("divided {}, left out {}, rank {}", static_cast<int>(divided), left_out,
                                   host.rank()));
          EXPECT_EQ(traffic.reads_of[host.rank()], 1);
          EXPECT_EQ(traffic.uploads_waited, 0);
        }
    // Through host memory each collective's tensors are read besides: here one bucket of gradients.
    const auto staged = comm::make_staged_comm(host);
    for (Traffic& traffic : of_steps(*staged, train::Divided::kNothing, false))
      EXPECT_EQ(traffic.reads_of[host.rank()], 1 + 1);
  });
}

// 20 MiB of gradients are one bucket there; of 8 MiB, as on the host, the head would be one and the rest another.
TEST(RanksOnDevices, BucketsAreADevices) {
  comm::run_thread_ranks(2, [](comm::Comm& host) {
    const at::Device device = fake_device(host.rank());
    const c10::DeviceGuard here(device);
    models::DecoderSpec spec = tiny_llama();
    spec.vocabulary = (10 << 20) / (4 * spec.width);  // the embedding and the head have 10 MiB each
    const auto model = random_model(spec);
    models::IdentityMap map;
    models::bind_working(model->parameters(), map, at::kFloat);
    models::move_to(model->parameters(), device);
    const auto objective = train::make_cross_entropy();
    const auto optimizer = train::make_optimizer({.lr = kLr, .eps = kEps}, model->parameters());
    host.barrier();
    const Watch watch;
    host.barrier();
    const train::TrainStep step({.model = *model,
                                 .map = map,
                                 .objective = *objective,
                                 .optimizer = *optimizer,
                                 .comm = host,
                                 .graphs = false},
                                1, kClip);
    host.barrier();
    Traffic both = watch.traffic();
    EXPECT_EQ(both.operators["aten::zero_"] + both.operators["aten::fill_.Scalar"], 2) << "one a rank";
  });
}

}  // namespace
}  // namespace retort::testing
