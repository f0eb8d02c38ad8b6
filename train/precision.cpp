#include "train/precision.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/nearest.h"

namespace retort::train {
namespace {

// GFLOP/s of [512, 512] x [512, 512]: the best of a few runs, after one that warms up.
double measure(at::ScalarType dtype) {
  constexpr int64_t kSize = 512;
  const at::Tensor a = at::ones({kSize, kSize}, dtype), b = at::ones({kSize, kSize}, dtype);
  at::Tensor c = at::mm(a, b);
  double best = 1e9;
  for (int run = 0; run < 3; ++run) {
    const auto start = std::chrono::steady_clock::now();
    at::mm_out(c, a, b);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * kSize * kSize * kSize / best / 1e9;
}

bool wants_bf16(const std::string& precision, Log& log, const CpuFeatures& cpu,
                const std::function<GemmRates()>& measure_rates) {
  const bool units = cpu.avx512_bf16 || cpu.amx_bf16;
  if (precision == "fp32" || (precision == "auto" && !units)) return false;
  const GemmRates rates = measure_rates();
  if (precision == "bf16") {
    if (!units)
      log.warn(
          "precision bf16 on a processor without bf16 units ({}): products run at {:.0f} GFLOP/s, in fp32 at "
          "{:.0f}; precision auto would take fp32",
          cpu.model, rates.bf16, rates.fp32);
    return true;
  }
  const bool faster = rates.bf16 >= kWorthwhile * rates.fp32;
  log.info("precision {}: products run at {:.0f} GFLOP/s in bf16, {:.0f} in fp32", faster ? "bf16" : "fp32",
           rates.bf16, rates.fp32);
  return faster;
}

}  // namespace

GemmRates measure_gemm_rates() {
  const at::NoGradGuard no_grad;
  return {measure(at::kFloat), measure(at::kBFloat16)};
}

at::ScalarType choose_precision(const std::string& precision, comm::Comm& comm, Log& log,
                                const CpuFeatures& cpu, const std::function<GemmRates()>& measure) {
  const std::vector<std::string> names = precision_names();
  check<ConfigError>(std::find(names.begin(), names.end(), precision) != names.end(),
                     "[precision] must be one of {}, got \"{}\"{}", fmt::join(names, ", "), precision,
                     did_you_mean(precision, names));
  const bool mine = comm.rank() == 0 && wants_bf16(precision, log, cpu, measure);
  return comm.reduce(int64_t{mine}, comm::Reduce::kMax) != 0 ? at::kBFloat16 : at::kFloat;
}

std::string precision_of(const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique())
    if (p.working.scalar_type() == at::kBFloat16) return "bf16";
  return "fp32";
}

std::vector<std::string> precision_names() { return {"auto", "fp32", "bf16"}; }

}  // namespace retort::train
