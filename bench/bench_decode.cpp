// Decoding token by token with a 1.1B-parameter Llama shape in bf16: how close it comes to reading its
// weights at the speed at which this machine copies memory. First products of a few rows against LibTorch's,
// checked against f64 and timed in pairs; then whole tokens out of eval::generate, a copy before and after
// each round.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/core.h>

#include <cstring>

#include "bench/paired.h"
#include "core/error.h"
#include "core/kept_pages.h"
#include "core/random.h"
#include "eval/generate.h"
#include "kernels/cpu_tuning.h"
#include "kernels/thin_product.h"
#include "models/decoder.h"
#include "models/weight_map.h"

namespace {

using namespace retort;

constexpr int kRounds = 7;
constexpr int64_t kTokens = 8;  // of a round, after a prompt of one token: every step reads all weights

models::DecoderSpec tinyllama() {
  models::DecoderSpec spec;
  spec.vocabulary = 32000;
  spec.layers = 22;
  spec.width = 2048;
  spec.heads = 32;
  spec.kv_heads = 4;
  spec.head_dim = 64;
  spec.ffn_width = 5632;
  spec.tie_embeddings = false;
  return spec;
}

at::Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Tensor out = at::empty(shape);
  Random(seed, "bench/decode").fill_normal(out, 0.02);
  return out.to(at::kBFloat16);
}

double error_of(const at::Tensor& y, const at::Tensor& exact) {
  return ((y.to(at::kDouble) - exact).abs().max() / exact.abs().max()).item<double>();
}

void compare_products(int64_t columns, int64_t depth) {
  const at::Tensor w = normal({columns, depth}, 1);
  for (const int64_t rows : {1, 4, 8}) {
    const at::Tensor x = normal({rows, depth}, 2), exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
    const double ours = error_of(kernels::thin_product(x, w), exact),
                 peer = error_of(at::linear(x, w), exact);
    check<InternalError>(ours <= 2 * peer + 0x1p-22, "[bench_decode] error {:.2e}, the peer's {:.2e}", ours,
                         peer);
    const bench::Paired times =
        bench::time_pairs([&] { kernels::thin_product(x, w); }, [&] { at::linear(x, w); }, 15);
    const double gigabytes = 2e-9 * static_cast<double>(columns * depth);
    fmt::print(
        "{} x {:5} x {:5}: {:6.2f} ms ({:5.1f} GB/s), LibTorch {:6.2f} ms; ours / LibTorch {:.3f} "
        "[{:.3f}-{:.3f}]\n",
        rows, depth, columns, times.ours.wall_ms, gigabytes / times.ours.wall_ms * 1e3, times.peer.wall_ms,
        times.wall.median, times.wall.low, times.wall.high);
  }
}

// Copies all of it, on all threads.
class Copy {
 public:
  double bytes() const { return 2.0 * static_cast<double>(from_.size()); }  // read and written
  bench::Times operator()() {
    return bench::time_once([&] {
      at::parallel_for(0, kChunks, 1, [&](int64_t begin, int64_t end) {
        const auto at = static_cast<size_t>(begin) * kChunk;
        std::memcpy(to_.data() + at, from_.data() + at, static_cast<size_t>(end - begin) * kChunk);
      });
    });
  }

 private:
  static constexpr int64_t kChunks = 16;
  static constexpr size_t kChunk = size_t{1} << 24;
  std::vector<char> from_ = std::vector<char>(kChunks * kChunk, 1),
                    to_ = std::vector<char>(kChunks * kChunk, 2);
};

// Masters stay untouched memory; the working copies get values.
void fill(models::Decoder& model) {
  models::IdentityMap identity;
  models::bind_working(model.parameters(), identity, at::kBFloat16);
  for (models::Parameter& p : model.parameters().unique()) {
    if (p.role == models::Role::kNorm)
      p.working.fill_(1.0);
    else
      p.working.uniform_(-0.03, 0.03);
  }
}

// What a token reads: every weight but the embedding, of which it reads a row.
double bytes_a_token(const models::Decoder& model) {
  double bytes = 0;
  for (const models::Parameter& p : model.parameters().unique())
    if (p.role != models::Role::kEmbedding)
      bytes += static_cast<double>(p.numel()) * static_cast<double>(p.working.element_size() * p.uses.size());
  return bytes;
}

void print(const char* what, const std::vector<double>& values, const char* unit) {
  const bench::Quartiles q = bench::quartiles(values);
  fmt::print("  {} {:.2f} [{:.2f}-{:.2f}] {}\n", what, q.median, q.low, q.high, unit);
}

// Shares: bytes a second of decoding over bytes a second of the copies around it, by wall time and by the CPU
// time of all threads, which a busy neighbour disturbs less.
void decode(models::Decoder& model, size_t batch, Copy& copy) {
  const std::vector<std::vector<int32_t>> prompts(batch, std::vector<int32_t>(1, 17));
  const double bytes = kTokens * bytes_a_token(model);
  std::vector<double> rates, speeds, wall, cpu;
  for (int i = 0; i <= kRounds; ++i) {
    const bench::Times before = copy();
    const bench::Times ours = bench::time_once([&] { eval::generate(model, prompts, {.tokens = kTokens}); });
    const bench::Times after = copy();
    if (i == 0) continue;  // warm up
    rates.push_back(1e3 * static_cast<double>(kTokens) * static_cast<double>(batch) / ours.wall_ms);
    speeds.push_back(2e-6 * copy.bytes() / (before.wall_ms + after.wall_ms));
    wall.push_back(bytes / ours.wall_ms * (before.wall_ms + after.wall_ms) / 2 / copy.bytes());
    cpu.push_back(bytes / ours.cpu_ms * (before.cpu_ms + after.cpu_ms) / 2 / copy.bytes());
  }
  fmt::print("batch {}, {:.2f} GB a step\n", batch, bytes_a_token(model) * 1e-9);
  print("decoding", rates, "tok/s");
  print("copy", speeds, "GB/s");
  print("share of the copy's bandwidth", wall, "");
  print("the same by CPU time", cpu, "");
}

}  // namespace

int main() {
  const at::NoGradGuard no_grad;
  kernels::tune_cpu();
  const KeptPages kept;
  fmt::print("{} threads\n", at::get_num_threads());
  compare_products(2048, 2048);
  compare_products(5632, 2048);
  models::Decoder model(tinyllama());
  fill(model);
  Copy copy;
  for (const size_t batch : {1, 4, 8}) decode(model, batch, copy);
}
