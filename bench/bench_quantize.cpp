// What quantization-aware training costs: rebuilding the working copies of a 7M-parameter byte model on a
// grid, beside the plain copy that a map without a grid makes; and (case cpu_qat) a whole training step with
// the map beside the same step without one, in one run. Checks, then times.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/core.h>

#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

#include "bench/paired.h"
#include "comm/comm.h"
#include "core/random.h"
#include "models/decoder.h"
#include "quantize/quantize_map.h"
#include "quantize/report.h"
#include "train/step.h"

namespace {

using namespace retort;

models::DecoderSpec byte_model() {
  return {.vocabulary = 256,
          .layers = 9,
          .width = 256,
          .heads = 4,
          .kv_heads = 4,
          .head_dim = 64,
          .ffn_width = 768};
}

quantize::QuantizeOptions all_on(const std::string& grid) {
  return {.weights = {grid}, .embedding = {grid}, .head = {grid}, .except = {}};
}

void check_packed(quantize::QuantizeMap& map, const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique())
    if (const quantize::Grid* grid = map.grid_of(p); grid != nullptr && grid->ggml)
      check<InternalError>(at::equal(formats::unpack(map.pack(p)), map.apply(p, p.master)),
                           "[bench_quantize] {}: the packed values differ from the evaluated", p.name);
}

void time_refresh(const std::string& grid) {
  const at::NoGradGuard no_grad;
  models::Decoder model(byte_model());
  models::Parameters& parameters = model.parameters();
  models::initialise(parameters, "gpt2", 0.02, 1);
  quantize::QuantizeMap map(all_on(grid), parameters);
  map.fit_scales();
  models::bind_working(parameters, map, at::kFloat);
  check_packed(map, parameters);
  const double bits = quantize::bits_per_weight(quantize::report(map, parameters));
  const auto refresh = [&](bool on) {
    map.enable(on);
    models::refresh_working(parameters, map);
  };
  const bench::Paired times = bench::time_pairs([&] { refresh(true); }, [&] { refresh(false); }, 15);
  fmt::print("{:12} {:5.2f} bits a weight: refresh of {:.2f}M {:.1f} ms, plain copy {:.1f} ms\n", grid, bits,
             static_cast<double>(parameters.stored()) / 1e6, times.ours.wall_ms, times.peer.wall_ms);
}

data::Batch batch_of(int64_t rows, int64_t tokens) {
  at::Tensor ids = at::empty({rows, tokens + 1}, at::kLong);
  const Random random(3, "bench_quantize");
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(static_cast<uint64_t>(i), 256));
  data::Batch batch;
  batch.tokens_BT = ids.slice(1, 0, tokens).contiguous();
  batch.labels_BT = ids.slice(1, 1).contiguous();
  return batch;
}

// A model, what makes its working weights, and an optimizer; one step at a time.
class Training {
 public:
  explicit Training(const std::string& grid) : model_(byte_model()), objective_(train::make_cross_entropy()) {
    models::Parameters& parameters = model_.parameters();
    models::initialise(parameters, "gpt2", 0.02, 1);
    if (grid.empty()) {
      map_ = std::make_unique<models::IdentityMap>();
    } else {
      auto map = std::make_unique<quantize::QuantizeMap>(all_on(grid), parameters);
      const at::NoGradGuard no_grad;
      map->fit_scales();
      map_ = std::move(map);
    }
    optimizer_ = train::make_optimizer({}, parameters);
    models::bind_working(parameters, *map_, at::kFloat);
    step_ = std::make_unique<train::TrainStep>(
        train::StepParts{model_, *map_, *objective_, *optimizer_, *comm_}, 1, 1.0);
  }
  void operator()(const data::Batch& batch) { step_->run(number_++, {batch}, 1e-4); }

 private:
  models::Decoder model_;
  std::unique_ptr<models::WeightMap> map_;
  std::unique_ptr<train::Objective> objective_;
  std::unique_ptr<train::Optimizer> optimizer_;
  std::unique_ptr<comm::Comm> comm_ = comm::make_self_comm();
  std::unique_ptr<train::TrainStep> step_;
  int64_t number_ = 0;
};

void time_step(const std::string& grid, int pairs) {
  std::unique_ptr<Training> quantized, plain;
  const data::Batch batch = batch_of(8, 256);
  const bench::Paired times = bench::time_pairs([&] { (*quantized)(batch); }, [&] { (*plain)(batch); }, pairs,
                                                [&] {
                                                  quantized = std::make_unique<Training>(grid);
                                                  plain = std::make_unique<Training>("");
                                                });
  fmt::print(
      "cpu_qat {:10} step of {} tokens: {:.0f} ms, plain {:.0f} ms; ratio of CPU time {:.3f} ({:.3f} .. "
      "{:.3f}), of "
      "wall time {:.3f} ({:.3f} .. {:.3f})\n",
      grid, batch.tokens_BT.numel(), times.ours.wall_ms, times.peer.wall_ms, times.cpu.median, times.cpu.low,
      times.cpu.high, times.wall.median, times.wall.low, times.wall.high);
}

}  // namespace

// bench_quantize [PAIRS [GRID...]]: pairs of steps in cpu_qat, 0 for none; without grids, all of them.
int main(int argc, char** argv) {
  const int pairs = argc > 1 ? std::atoi(argv[1]) : 7;
  std::vector<std::string> chosen(argv + std::min(argc, 2), argv + argc);
  if (chosen.empty()) chosen = quantize::grids().names();
  fmt::print("{} threads\n", at::get_num_threads());
  for (const std::string& grid : chosen) time_refresh(grid);
  for (const std::string& grid : chosen)
    if (pairs > 0 && grid != "q4_k" && grid != "q6_k") time_step(grid, pairs);
}
