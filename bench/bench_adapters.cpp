// A training step of low-rank adapters against a step of the whole model: time, interleaved, and the most memory that a
// process takes which does nothing else. Checks first that all begin with the same loss, but for a base in 4 bits.
//   bench_adapters [PAIRS]
#include <ATen/Parallel.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "bench/paired.h"
#include "core/error.h"
#include "core/random.h"
#include "models/adapters.h"
#include "models/decoder.h"
#include "train/step.h"

namespace {

using namespace retort;

constexpr int64_t kVocabulary = 4096, kTokens = 256, kRows = 4;

struct Version {
  const char* name;
  const char* base;  // of adapters of rank 16 on every matrix of layers; nullptr: all is trained
};
constexpr Version kVersions[] = {
    {"all weights", nullptr}, {"adapters", "f32"}, {"over q8_0", "q8_0"}, {"over nf4", "nf4"}};

data::Batch batch() {
  const Random random(11, "tokens");
  const at::Tensor ids = at::empty({kRows, kTokens + 1}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.view({-1})[i] = static_cast<int64_t>(random.below(static_cast<uint64_t>(i), kVocabulary));
  return {ids.narrow(1, 0, kTokens).contiguous(), ids.narrow(1, 1, kTokens).contiguous(), {}, {}, {}};
}

// One version with its optimizer, ready to step.
class Training {
 public:
  explicit Training(const Version& version) : batch_(batch()) {
    auto model = std::make_unique<models::Decoder>(models::DecoderSpec{.vocabulary = kVocabulary,
                                                                       .context = kTokens,
                                                                       .layers = 8,
                                                                       .width = 512,
                                                                       .heads = 8,
                                                                       .kv_heads = 8,
                                                                       .head_dim = 64,
                                                                       .ffn_width = 1408});
    models::initialise(model->parameters(), "gpt2", 0.02, 1);
    model_ = std::move(model);
    if (version.base != nullptr) {
      models::AdapterOptions options;
      options.rank = 16;
      options.base = version.base;
      model_ = models::adapt(std::move(model_), options, 1);
    }
    models::bind_working(model_->parameters(), map_, at::kFloat);
    optimizer_ = train::make_optimizer({}, model_->parameters());
    step_.emplace(train::StepParts{*model_, map_, *objective_, *optimizer_, *comm_}, 1, 1.0);
  }
  double step() { return step_->run(number_++, {batch_}, 1e-4).loss; }

 private:
  data::Batch batch_;
  std::unique_ptr<models::Model> model_;
  models::IdentityMap map_;
  std::unique_ptr<train::Objective> objective_ = train::make_cross_entropy();
  std::unique_ptr<train::Optimizer> optimizer_;
  std::unique_ptr<comm::Comm> comm_ = comm::make_self_comm();
  std::optional<train::TrainStep> step_;
  int64_t number_ = 0;
};

// Of a process of its own: three steps, or what there is before any.
double peak_megabytes(const Version* version) {
  const pid_t child = fork();
  check<InternalError>(child >= 0, "[bench_adapters] no process");
  if (child == 0) {
    if (version != nullptr) {
      Training training(*version);
      for (int i = 0; i < 3; ++i) training.step();
    }
    _exit(0);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  check<InternalError>(status == 0, "[bench_adapters] a process failed");
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

}  // namespace

int main(int argc, char** argv) {
  const int pairs = argc > 1 ? std::atoi(argv[1]) : 7;
  const double before = peak_megabytes(nullptr);  // processes first: threads do not survive a fork
  std::vector<double> peaks;
  for (const Version& version : kVersions) peaks.push_back(peak_megabytes(&version) - before);
  fmt::print("{} threads, {} tokens a step, f32\n", at::get_num_threads(), kRows * kTokens);
  double loss = 0;
  {
    Training all(kVersions[0]);
    loss = all.step();
  }
  for (size_t i = 0; i < std::size(kVersions); ++i) {
    const Version& version = kVersions[i];
    Training whole(kVersions[0]), ours(version);
    const double first = ours.step();
    const bool rounds = version.base != nullptr && std::string_view(version.base) != "f32";
    check<InternalError>(std::abs(first / loss - 1.0) < (rounds ? 1e-2 : 1e-6),
                         "[bench_adapters] {} begins with {}, not {}", version.name, first, loss);
    const bench::Paired times = bench::time_pairs([&] { ours.step(); }, [&] { whole.step(); }, pairs);
    fmt::print(
        "{:<12} {:7.1f} ms a step, / all weights: wall {:.3f} [{:.3f}-{:.3f}], cpu {:.3f} [{:.3f}-{:.3f}]; "
        "{:.0f} MB\n",
        version.name, times.ours.wall_ms, times.wall.median, times.wall.low, times.wall.high,
        times.cpu.median, times.cpu.low, times.cpu.high, peaks[i]);
  }
}
