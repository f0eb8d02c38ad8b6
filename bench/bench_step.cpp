// Our side of a race of whole training steps; bench/step_peers.py starts it and the peers, and prints the table.
//
//   bench_step CASE write FILE [ROWS]              the weights and a batch of 16 rows, which every side reads
//   bench_step CASE serve FILE fp32|bf16           a worker: reads commands from stdin, answers each with a line of JSON
//   bench_step CASE profile FILE fp32|bf16 [STEPS]   where the time of the steps goes (train/profile.h)
//
// CASE: step7m, cross-entropy of a Llama-like model of 5.9M parameters; distill7m, forward KL over the whole vocabulary
// from a live teacher of 13.8M. A step is forward, loss, backward, clip and AdamW; a row has 256 tokens.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/core.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "bench/paired.h"
#include "comm/comm.h"
#include "core/error.h"
#include "core/kept_pages.h"
#include "core/random.h"
#include "distill/objective.h"
#include "formats/safetensors.h"
#include "kernels/cpu_tuning.h"
#include "models/decoder.h"
#include "plan/flops.h"
#include "train/precision.h"
#include "train/profile.h"
#include "train/step.h"

namespace {

using namespace retort;

constexpr int64_t kTokens = 256;
constexpr double kLr = 1e-3, kClip = 1.0;

struct Case {
  std::string name;
  models::DecoderSpec student;
  std::optional<models::DecoderSpec> teacher;
};

models::DecoderSpec llama(int64_t vocabulary, int64_t width, int64_t heads, int64_t ffn_width) {
  return {.vocabulary = vocabulary,
          .context = kTokens,
          .layers = 6,
          .width = width,
          .heads = heads,
          .kv_heads = heads,
          .head_dim = 32,
          .ffn_width = ffn_width};
}

Case case_of(const std::string& name) {
  const Case cases[] = {{"step7m", llama(4096, 256, 8, 704), {}},
                        {"distill7m", llama(8192, 256, 8, 704), llama(8192, 384, 12, 1024)}};
  for (const Case& one : cases)
    if (one.name == name) return one;
  fail<ConfigError>("[bench_step] the case must be step7m or distill7m, got {}", name);
}

// Weights as training begins with, the teacher's larger so that it prefers some tokens; uniform tokens.
void write(const Case& of, int64_t rows, const Path& path) {
  formats::NamedTensors out;
  const auto add = [&](const models::DecoderSpec& spec, const std::string& prefix, double std,
                       uint64_t seed) {
    models::Decoder model(spec);
    models::initialise(model.parameters(), "gpt2", std, seed);
    for (const models::Parameter& p : model.parameters().unique())
      out.emplace_back(prefix + p.name, p.master);
  };
  add(of.student, "student.", 0.0, 1);
  if (of.teacher) add(*of.teacher, "teacher.", 0.1, 2);
  const at::Tensor ids = at::empty({rows, kTokens + 1}, at::kLong);
  const Random random(3, "bench_step");
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(
        random.below(static_cast<uint64_t>(i), static_cast<uint64_t>(of.student.vocabulary)));
  out.emplace_back("tokens", ids.slice(1, 0, kTokens).contiguous());
  out.emplace_back("labels", ids.slice(1, 1).contiguous());
  formats::write_safetensors(local_files(), path, out);
}

// Keeps what an optimizer would be given.
class Recorder final : public train::Optimizer {
 public:
  void step(const train::Trained& trained, const std::vector<at::Tensor>& gradients, double,
            const at::Tensor&, const std::vector<kernels::WorkingCopy>&) override {
    for (size_t i = 0; const models::Parameter* p : trained.all())
      seen.emplace_back(p->name, gradients[i++].clone());
  }
  void left_out() override {}
  formats::NamedTensors state() const override { return {}; }
  std::vector<const models::Parameter*> state_parameters() const override { return {}; }
  void set_state(const std::map<std::string, at::Tensor>&) override {}
  formats::NamedTensors seen;
};

class Training {
 public:
  Training(const Case& of, const Path& path, at::ScalarType dtype) : file_(path), model_(of.student) {
    load(model_, "student.", dtype);
    batch_.tokens_BT = file_.tensor("tokens").clone();
    batch_.labels_BT = file_.tensor("labels").clone();
    tokens_ = batch_.tokens_BT.numel();
    count_flops(model_, 1.0);
    if (of.teacher) {
      auto teacher = std::make_unique<models::Decoder>(*of.teacher);
      load(*teacher, "teacher.", dtype);
      count_flops(*teacher, 1.0 / 3.0);
      objective_ = distill::make_distillation(distill::make_live_teacher(std::move(teacher)),
                                              {{.fn = "forward_kl"}}, model_);
    } else {
      objective_ = train::make_cross_entropy();
    }
    optimizer_ = train::make_optimizer({}, model_.parameters());
    step_.emplace(train::StepParts{model_, map_, *objective_, *optimizer_, *comm_}, 1, kClip);
  }

  double step() { return step_->run(number_++, {batch_}, kLr).loss; }

  // Loss and gradients before clipping, in a file; nothing is updated.
  double check(const Path& path) {
    Recorder recorder;
    train::TrainStep step({model_, map_, *objective_, recorder, *comm_}, 1, kClip);
    const double loss = step.run(0, {batch_}, kLr).loss;
    formats::write_safetensors(local_files(), path, recorder.seen);
    return loss;
  }

  const plan::Flops& flops() const { return flops_; }  // of a step

 private:
  void load(models::Model& model, const std::string& prefix, at::ScalarType dtype) {
    for (models::Parameter& p : model.parameters().unique()) p.master.copy_(file_.tensor(prefix + p.name));
    models::bind_working(model.parameters(), map_, dtype);
  }
  void count_flops(const models::Model& model, double share) {
    const plan::Flops a_token = plan::flops_a_token(model, kTokens);
    flops_.products += share * a_token.products * static_cast<double>(tokens_);
    flops_.attention += share * a_token.attention * static_cast<double>(tokens_);
  }

  formats::SafetensorsFile file_;
  models::Decoder model_;
  models::IdentityMap map_;
  data::Batch batch_;
  int64_t tokens_ = 0, number_ = 0;
  plan::Flops flops_;
  std::unique_ptr<comm::Comm> comm_ = comm::make_self_comm();
  std::unique_ptr<train::Objective> objective_;
  std::unique_ptr<train::Optimizer> optimizer_;
  std::optional<train::TrainStep> step_;
};

double status_mib(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::atof(line.c_str() + key.size() + 1) / 1024.0;
  fail<IoError>("[bench_step] /proc/self/status has no {}", key);
}

// GF/s of LibTorch's products of the shape that kernels/cpu_tuning.h measures, over 0.2 s, but by CPU time: a busy
// neighbour takes turns. The best product is the machine undisturbed; a step is disturbed as the mean one is.
struct Rates {
  double best, mean;
};
Rates product_rates(at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const at::Tensor a = at::ones({1024, 256}, dtype), b = at::ones({1024, 256}, dtype);
  at::Tensor c = at::empty({1024, 1024}, dtype);
  double best = std::numeric_limits<double>::infinity(), spent = 0;
  int products = 0;
  for (; spent < 200; ++products) {
    const double ms = bench::time_once([&] { at::mm_out(c, a, b.t()); }).cpu_ms;
    best = std::min(best, ms);
    spent += ms;
  }
  const double gflop = 2e-6 * 1024 * 256 * 1024;
  return {gflop / best, gflop * products / spent};
}

void serve(const Case& of, const Path& path, at::ScalarType dtype) {
  const double before = status_mib("VmRSS");
  const std::string library = kernels::choose_products();
  Training training(of, path, dtype);
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "step") {
      double loss = 0;
      const Rates rates = product_rates(dtype), f32_rates = product_rates(at::kFloat);
      const bench::Times times = bench::time_once([&] { loss = training.step(); });
      fmt::print(R"({{"cpu": {}, "wall": {}, "loss": {}, "ceiling": {}, "mean": {}, "f32_ceiling": {}}})",
                 times.cpu_ms, times.wall_ms, loss, rates.best, rates.mean, f32_rates.best);
    } else if (line.starts_with("check ")) {
      fmt::print(R"({{"loss": {}}})", training.check(line.substr(6)));
    } else {
      fmt::print(R"({{"before": {}, "peak": {}, "library": "{}", "products": {}, "attention": {}}})", before,
                 status_mib("VmHWM"), library, training.flops().products, training.flops().attention);
    }
    fmt::print("\n");
    std::fflush(stdout);
  }
}

void profile(const Case& of, const Path& path, at::ScalarType dtype, int64_t steps) {
  kernels::choose_products();
  Training training(of, path, dtype);
  training.step(), training.step();
  train::Profile profile(at::kCPU);
  for (int64_t i = 0; i < steps; ++i) training.step();
  profile.stop();
  fmt::print("{}\n", profile.table(steps));
}

int run(const std::vector<std::string>& arguments) {
  check<ConfigError>(arguments.size() >= 3, "[bench_step] usage: the head of bench/bench_step.cpp");
  const Case of = case_of(arguments[0]);
  const std::string &verb = arguments[1], &path = arguments[2];
  if (verb == "write") {
    write(of, arguments.size() > 3 ? std::atoll(arguments[3].c_str()) : 16, path);
    return 0;
  }
  check<ConfigError>(arguments.size() >= 4, "[bench_step] {} needs fp32 or bf16", verb);
  const at::ScalarType dtype = train::dtype_of(arguments[3]);
  const KeptPages kept;
  if (verb == "profile")
    profile(of, path, dtype, arguments.size() > 4 ? std::atoll(arguments[4].c_str()) : 3);
  else
    serve(of, path, dtype);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
