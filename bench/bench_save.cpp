// How long a checkpoint pauses training, saved in the background or waited for, beside a plain copy of the same bytes.
// Checks that all bytes come back, then times.   bench_save [MiB of weights, 64] [directory, .]
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include <cstring>

#include "bench/paired.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "models/placement.h"
#include "train/checkpoint.h"
#include "train/saver.h"

namespace {

using namespace retort;

// Weights and two moments of each, as AdamW has them.
std::vector<at::Tensor> state_of(int64_t mebibytes) {
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < 3 * mebibytes / 4; ++i)
    out.push_back(at::arange(int64_t{1} << 20, at::kFloat).view({1024, 1024}).add(static_cast<double>(i)));
  return out;
}

train::CheckpointContent content_of(const std::vector<at::Tensor>& state, int64_t step) {
  train::CheckpointContent out;
  out.step = step;
  for (size_t i = 0; i < state.size(); ++i) {
    const std::string name = fmt::format("t{}", i);
    auto& list = i % 3 == 0 ? out.weights : out.optimizer;
    list.emplace_back(name, at::empty(state[i].sizes(), state[i].options().device(at::kMeta)));
    out.shares[name] = {state[i], 0, models::cut_into_blocks(state[i].sizes()).step};
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t mebibytes = argc > 1 ? std::atoll(argv[1]) : 64;
  const Path directory = Path(argc > 2 ? argv[2] : ".") / "bench_save.checkpoints";
  const std::vector<at::Tensor> state = state_of(mebibytes);
  std::vector<at::Tensor> copy;
  for (const at::Tensor& x : state) copy.push_back(at::empty_like(x));
  const auto comm = comm::make_self_comm();
  using train::Saver;
  Saver background(local_files(), train::local_ranges(), *comm, directory, 1, "async"),
      waiting(local_files(), train::local_ranges(), *comm, directory, 1, "sync");
  int64_t step = 0;
  std::vector<double> stalls, whole, copies, ratios;
  const auto saved = [&](Saver& saver) {
    const double begin = bench::clock_ms(CLOCK_MONOTONIC);
    saver.start(content_of(state, ++step), Saver::Clock::now(), [](double) {});
    const double started = bench::clock_ms(CLOCK_MONOTONIC) - begin;
    const std::string failure = saver.finish().failure;
    check<IoError>(failure.empty(), "{}", failure);
    return std::pair(started, bench::clock_ms(CLOCK_MONOTONIC) - begin);
  };
  saved(background);  // makes its memory
  const auto loaded = train::load_checkpoint(train::checkpoint_path(directory, step));
  for (size_t i = 0; i < state.size(); ++i) {
    const auto& tensors = i % 3 == 0 ? loaded.weights : loaded.optimizer;
    check(at::equal(tensors.at(fmt::format("t{}", i)), state[i]), "tensor {} does not come back", i);
  }
  for (int i = 0; i < 9; ++i) {
    copies.push_back(bench::time_once([&] {
                       for (size_t t = 0; t < state.size(); ++t)
                         std::memcpy(mutable_host_bytes(copy[t]).data(), host_bytes(state[t]).data(),
                                     state[t].nbytes());
                     }).wall_ms);
    stalls.push_back(saved(background).first);
    whole.push_back(saved(waiting).second);
    ratios.push_back(stalls.back() / copies.back());
  }
  std::filesystem::remove_all(directory);
  const bench::Quartiles ratio = bench::quartiles(ratios);
  fmt::print(
      "{} MiB of state: a save pauses training for {:.1f} ms (train.save: async), {:.1f} ms (sync); a memcpy "
      "takes {:.1f} ms\nasync / memcpy: {:.2f} ({:.2f} to {:.2f})\n",
      3 * mebibytes, bench::quartiles(stalls).median, bench::quartiles(whole).median,
      bench::quartiles(copies).median, ratio.median, ratio.low, ratio.high);
}
