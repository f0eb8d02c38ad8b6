// Training on grids on a device: the CPU's bits, and which grids' weights stay there.
#include <gmock/gmock.h>

#include <algorithm>

#include "quantize/device_fit.h"
#include "quantize/quantize_map.h"
#include "tests/fake_device/grid_training.h"
#include "tests/kernels/gradcheck.h"

namespace retort::testing {
namespace {

using models::Parameters, models::Role;

// Rows that every grid fits, a tensor of one row, and a tied matrix.
struct Weights : Parameters {
  Weights() {
    add("embed.weight", {40, 256}, Role::kEmbedding);
    add("norm.weight", {256}, Role::kNorm);
    add("layers.0.ffn.up.weight", {48, 256}, Role::kMatrix);
    add("layers.0.ffn.down.weight", {1, 512}, Role::kMatrix);
    alias("layers.1.ffn.up.weight", "layers.0.ffn.up.weight");
    for (models::Parameter& p : unique())
      p.master.copy_(normal(p.master.sizes(), p.master.numel(), 0.05)).view({-1})[3] = 0;
  }
};

struct Steps {
  Tensors tensors;      // of each step: masters, working copies, what was pulled back
  Traffic traffic;      // of the last step
  int64_t written = 0;  // working copies that its update wrote with their masters
};

// Steps whose gradients follow from the working copies by products, so that they have the same bits everywhere.
Steps train_on(const std::string& grid, at::ScalarType dtype, const at::Device& device) {
  const at::NoGradGuard no_grad;
  Weights parameters;
  quantize::QuantizeMap map({.weights = {grid}, .embedding = {grid}, .head = {grid}, .from_step = 1},
                            parameters);
  models::bind_working(parameters, map, dtype);
  models::move_to(parameters, device);
  const train::Trained trained(parameters, nullptr);
  const auto optimizer = train::make_optimizer({.lr = kLr, .eps = kEps}, trained);
  const at::Tensor verdict = at::tensor({1.0, 0.75, 1.0}, at::kDouble).to(device);
  Steps out;
  for (int64_t step = 0; step < 4; ++step) {
    const Watch watch;
    if (map.begin_step(step)) models::refresh_working(parameters, map);
    Tensors gradients;
    for (const models::Parameter& p : parameters.unique())
      gradients.push_back(p.role == Role::kScale ? at::zeros_like(p.master)
                                                 : p.working.to(at::kFloat) * 3.0 + 0.25);
    gradients = models::pull_back(parameters, map, gradients);
    const std::vector<kernels::WorkingCopy> copies = models::copies_in_update(parameters, map);
    optimizer->step(trained, gradients, kLr, verdict, copies);
    models::refresh_trained(parameters, map, copies);
    out.traffic = watch.traffic();
    out.written = std::ranges::count_if(copies, [](const auto& copy) { return copy.values.defined(); });
    for (size_t i = 0; const models::Parameter& p : parameters.unique())
      for (const at::Tensor& x : {p.master, p.working.detach(), gradients[i++]})
        out.tensors.push_back(x.cpu().clone());
  }
  return out;
}

TEST(GridsOnDevice, StepsAreTheCpusBitsAndNothingTravels) {
  std::vector<std::string> staged;
  for (const quantize::Grid& grid : quantize::grids()) {
    Weights parameters;
    const quantize::QuantizeMap map({.weights = {grid.name}, .embedding = {"q8_0"}}, parameters);
    const bool there = quantize::works_on_device(grid);
    EXPECT_EQ(quantize::staged_grids(map, parameters).empty(), there);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(fmt::format("{} {}", grid.name, toString(dtype)));
      const Steps got = train_on(grid.name, dtype, fake_device()),
                  want = train_on(grid.name, dtype, at::kCPU);
      ASSERT_EQ(got.tensors.size(), want.tensors.size());
      for (size_t i = 0; i < want.tensors.size(); ++i) {
        EXPECT_FALSE(want.tensors[i].isnan().any().item<bool>() && i > want.tensors.size() / 2) << i;
        EXPECT_TRUE(same_bits(got.tensors[i].nan_to_num(0.5), want.tensors[i].nan_to_num(0.5)))
            << i << ": " << (got.tensors[i] - want.tensors[i]).abs().max().item<double>();
      }
      const Steps plain = train_on("none", dtype, fake_device());
      const Traffic& identity = plain.traffic;
      EXPECT_EQ(identity.host_reads(), 0);
      EXPECT_EQ(plain.written, dtype == at::kFloat ? 0 : 3)
          << "all but those that share their masters' storage";
      const auto fit = quantize::device_fit(grid);
      EXPECT_EQ(got.written, fit && fit->group > 0 ? 3 : 0);
      EXPECT_EQ(want.written, 0);
      if (!there) {
        EXPECT_EQ(got.traffic.to_host, 3) << "each master once";
        EXPECT_EQ(got.traffic.to_device, identity.to_device + 3) << "each value once";
        if (dtype == at::kFloat) staged.push_back(grid.name);
        continue;
      }
      EXPECT_EQ(got.traffic.host_reads(), 0);
      EXPECT_EQ(got.traffic.to_device, identity.to_device);
      EXPECT_EQ(got.traffic.uploads_waited, 0);
    }
  }
  EXPECT_THAT(staged, ::testing::UnorderedElementsAre("q4_k", "q6_k", "mxfp4", "nvfp4"));
}

// Of a rank that owns some of the rows, as parallel.shard has it.
TEST(GridsOnDevice, RowsOfARankAreTheCpusBits) {
  const at::NoGradGuard no_grad;
  for (const char* name : {"q4_0", "lsq4", "seq2", "ternary_row"}) {
    SCOPED_TRACE(name);
    Weights here, there;
    quantize::QuantizeMap map_here({.weights = {name}, .embedding = {"q8_0"}}, here),
        map_there({.weights = {name}, .embedding = {"q8_0"}}, there);
    map_here.begin_step(0), map_there.begin_step(0);
    models::move_to(there, fake_device());
    const char* const weight = "layers.0.ffn.up.weight";
    models::Parameter &p = here.at(weight), &q = there.at(weight);
    const at::Tensor gradient = normal({48, 256}, 4).to(at::kFloat);
    p.placement.owned = {8, 40, 8}, q.placement.owned = {8, 40, 8};
    const at::Tensor x = p.master.slice(0, 8, 40), y = q.master.slice(0, 8, 40), g = gradient.slice(0, 8, 40);
    EXPECT_TRUE(same_bits(map_there.apply(q, y).cpu(), map_here.apply(p, x)));
    EXPECT_TRUE(
        same_bits(map_there.pull_back(q, g.to(fake_device())).cpu(), map_here.pull_back(p, g.clone())));
    if (!quantize::grids().at(name).learned) continue;
    const std::string scale = weight + std::string("_scale");
    EXPECT_TRUE(
        same_bits(map_there.pull_back(there.at(scale), {}).cpu(), map_here.pull_back(here.at(scale), {})));
  }
}

// A whole step of a model waits for the device once, whether its values lie on grids or not.
TEST(GridsOnDevice, TheHostReadsOnceAStep) {
  for (const char* grid : {"q8_0", "lsq4", "ternary"}) {
    SCOPED_TRACE(grid);
    Training training = on_grid(grid);
    training.dtype = at::kBFloat16;
    const Traffic traffic = run(training, fake_device()).all_traffic.back();
    EXPECT_EQ(traffic.host_reads(), 1);
    EXPECT_EQ(traffic.uploads_waited, 0);
  }
}

}  // namespace
}  // namespace retort::testing
