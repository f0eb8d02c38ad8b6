// In what the working weights are held and multiplied: fp32 or bf16. Masters, optimizer state, the residual
// stream, norms, softmax and losses are f32 either way.
//
// auto takes bf16 where the processor has units for it and a measured product is at least kWorthwhile times
// as fast; without such units LibTorch's bf16 products run at a tenth of fp32, so there an explicit bf16
// warns with both rates. Throws ConfigError for another name.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/cpu.h"
#include "core/log.h"
#include "models/parameters.h"

namespace retort::train {

struct GemmRates {
  double fp32 = 0, bf16 = 0;  // GFLOP/s, all threads
};
inline constexpr double kWorthwhile = 1.2;

// A product of the shape that training makes, timed for a few tens of milliseconds.
GemmRates measure_gemm_rates();

// The dtype for models::bind_working. Collective: rank 0 measures and decides, all agree.
at::ScalarType choose_precision(const std::string& precision, comm::Comm& comm, Log& log,
                                const CpuFeatures& cpu = cpu_features(),
                                const std::function<GemmRates()>& measure = measure_gemm_rates);

// "bf16" when any working copy is, else "fp32".
std::string precision_of(const models::Parameters& parameters);
std::vector<std::string> precision_names();

}  // namespace retort::train
