// What quantization-aware training adds to an optimizer step: rebuilding the working copies of a 7M-parameter
// byte model on a grid, beside the plain copy that a map without a grid would cost. Checks, then times.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "models/decoder.h"
#include "quantize/report.h"

namespace {

using namespace retort;

template <class Body>
double median_ms(const Body& body) {
  std::vector<double> times;
  for (int i = 0; i < 15; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::nth_element(times, times.begin() + 7);
  return times[7];
}

void check_packed(quantize::QuantizeMap& map, const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique())
    check<InternalError>(at::equal(formats::unpack(map.pack(p)), map.apply(p, p.master)),
                         "[bench_quantize] {}: the packed values differ from the evaluated", p.name);
}

void time_grid(const std::string& grid) {
  models::Decoder model({.vocabulary = 256,
                         .layers = 9,
                         .width = 256,
                         .heads = 4,
                         .kv_heads = 4,
                         .head_dim = 64,
                         .ffn_width = 704});
  models::Parameters& parameters = model.parameters();
  models::initialise(parameters, "gpt2", 0.02, 1);
  quantize::QuantizeMap map({.weights = {grid}, .embedding = {grid}, .head = {grid}}, parameters);
  models::bind_working(parameters, map, at::kFloat);
  check_packed(map, parameters);

  const double on = median_ms([&] { models::refresh_working(parameters, map); });
  const double pack = median_ms([&] {
    for (const models::Parameter& p : parameters.unique()) map.pack(p);
  });
  const double bits = quantize::bits_per_weight(quantize::report(map, parameters));
  map.enable(false);
  const double off = median_ms([&] { models::refresh_working(parameters, map); });
  fmt::print(
      "{}: {:.2f}M parameters, {:.2f} bits a weight; refresh {:.2f} ms (plain copy {:.2f} ms), pack {:.2f} "
      "ms\n",
      grid, static_cast<double>(parameters.stored()) / 1e6, bits, on, off, pack);
}

}  // namespace

int main() {
  for (const quantize::Grid& grid : quantize::grids()) time_grid(grid.name);
}
