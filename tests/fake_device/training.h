// A few training steps on a device, and the same on the CPU beside them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "models/on_device.h"
#include "tests/fake_device/fake_device.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/step.h"

namespace retort::testing {

// An update moves a weight by at most lr / eps of what its gradient is off by, so that weights can be compared.
inline constexpr double kLr = 1e-2, kEps = 1e-2, kClip = 0.5;

// What one run trains. Everything is made on the CPU; then model and objective's parameters move.
struct Training {
  std::function<std::unique_ptr<models::Model>()> model;
  std::function<std::unique_ptr<models::WeightMap>(models::Parameters&)> map = [](models::Parameters&) {
    return std::make_unique<models::IdentityMap>();
  };
  // A teacher of its own moves to the device.
  std::function<std::unique_ptr<train::Objective>(const models::Model&, const at::Device&)> objective =
      [](const models::Model&, const at::Device&) { return train::make_cross_entropy(); };
  std::function<data::Batch(int64_t number)> batch = [](int64_t number) { return train::tiny_batch(number); };
  at::ScalarType dtype = at::kFloat;
  int64_t micro_batches = 2;
  std::function<double(int64_t step)> lr = [](int64_t) { return kLr; };
  std::function<void(models::Model&, int64_t step)> before_step = {};
  bool graphs = true;
  Log* log = nullptr;
  Injection* faults = nullptr;
  train::StepLimits limits = {};
};

// What a map makes is on the device as it would be on the host: the cast of apply(), whatever was staged.
inline void expect_working(const models::Parameters& parameters, models::WeightMap& map) {
  const at::NoGradGuard no_grad;
  for (const models::Parameter& p : parameters.unique()) {
    if (p.codes) continue;
    const at::Tensor want = map.apply(p, p.master.cpu()).to(p.working.scalar_type());
    EXPECT_TRUE(same_bits(p.working.detach().cpu(), want)) << p.name;
  }
}

struct Ran {
  std::vector<train::StepStats> steps;
  std::map<std::string, at::Tensor> masters;  // on the host
  std::vector<Traffic> all_traffic;           // of each step
  int64_t updates = 0;                        // that the optimizer has counted
};

// A chain of f32 operations with so many roundings, each sum counted by its terms.
inline constexpr double kChain = 2000 * 0x1p-24;

inline Ran run(const Training& training, const at::Device& device, int64_t steps = 3) {
  const auto model = training.model();
  const auto map = training.map(model->parameters());
  const auto objective = training.objective(*model, device);
  models::bind_working(model->parameters(), *map, training.dtype);
  models::move_to(model->parameters(), device);
  if (objective->learned() != nullptr) models::move_to(*objective->learned(), device);
  const auto optimizer =
      train::make_optimizer({.lr = kLr, .eps = kEps}, {model->parameters(), objective->learned()});
  const auto comm = comm::make_self_comm();
  train::TrainStep step({.model = *model,
                         .map = *map,
                         .objective = *objective,
                         .optimizer = *optimizer,
                         .comm = *comm,
                         .faults = training.faults,
                         .graphs = training.graphs,
                         .log = training.log},
                        training.micro_batches, kClip);
  Ran out;
  for (int64_t s = 0; s < steps; ++s) {
    std::vector<data::Batch> batches;
    for (int64_t g = 0; g < training.micro_batches; ++g)
      batches.push_back(training.batch(training.micro_batches * s + g));
    if (training.before_step) training.before_step(*model, s);
    const Watch watch;
    out.steps.push_back(step.run(s, batches, training.lr(s), training.limits));
    out.all_traffic.push_back(watch.traffic());
  }
  out.updates = optimizer->state().front().second.item<int64_t>();
  expect_working(model->parameters(), *map);
  for (const models::Parameter& p : model->parameters().unique())
    if (p.master.numel() > 0) out.masters[p.name] = p.master.cpu();
  return out;
}

inline void expect_close(const Ran& got, const Ran& want, double relative) {
  for (size_t s = 0; s < want.steps.size(); ++s) {
    const train::StepStats &one = got.steps[s], &other = want.steps[s];
    EXPECT_EQ(one.skipped, other.skipped);
    if (other.skipped) {  // what is not finite has no distance
      EXPECT_EQ(std::isfinite(one.loss), std::isfinite(other.loss)) << "step " << s;
      EXPECT_EQ(std::isfinite(one.gradient_norm), std::isfinite(other.gradient_norm)) << "step " << s;
      continue;
    }
    EXPECT_NEAR(one.loss, other.loss, relative * other.loss) << "step " << s;
    EXPECT_NEAR(one.gradient_norm, other.gradient_norm, relative * other.gradient_norm) << "step " << s;
  }
  for (const auto& [name, master] : want.masters)
    EXPECT_LE((got.masters.at(name) - master).abs().max().item<double>(), 3 * kLr / kEps * relative) << name;
}

// What a step sends leaves from pinned memory.
inline void expect_nothing_sent_is_waited_for(const Ran& ran) {
  for (size_t s = 0; s < ran.all_traffic.size(); ++s) {
    EXPECT_GT(ran.all_traffic[s].to_device, 0) << "step " << s;
    EXPECT_EQ(ran.all_traffic[s].uploads_waited, 0) << "step " << s;
  }
}

// In f32 the device's run is the CPU's.
inline void expect_the_cpus(const Training& training, double relative = kChain, int64_t steps = 3) {
  expect_close(run(training, fake_device(), steps), run(training, at::kCPU, steps), relative);
}

// In bf16 it is off from f32 by no more than twice what the CPU's is.
inline void expect_as_good_as_the_cpus(const std::function<Training(at::ScalarType dtype)>& training,
                                       int64_t steps = 3) {
  const Ran got = run(training(at::kBFloat16), fake_device(), steps),
            usual = run(training(at::kBFloat16), at::kCPU, steps),
            exact = run(training(at::kFloat), at::kCPU, steps);
  for (size_t s = 0; s < exact.steps.size(); ++s) {
    const double own = std::abs(usual.steps[s].loss - exact.steps[s].loss);
    EXPECT_NEAR(got.steps[s].loss, exact.steps[s].loss, 2 * own + 0x1p-8);
    EXPECT_NEAR(got.steps[s].gradient_norm, exact.steps[s].gradient_norm,
                0x1p-5 * exact.steps[s].gradient_norm);
  }
}

inline models::DecoderSpec small_llama() {
  models::DecoderSpec spec = train::tiny_spec();
  spec.share_ffn = false;
  spec.heads = 4, spec.kv_heads = 2, spec.head_dim = 4;
  return spec;
}

inline std::unique_ptr<models::Model> small_model(uint64_t seed = 5) {
  auto model = std::make_unique<models::Decoder>(small_llama());
  models::initialise(model->parameters(), "gpt2", 0.1, seed);
  return model;
}

}  // namespace retort::testing
