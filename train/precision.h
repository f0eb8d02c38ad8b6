// In what the working weights are held and multiplied: fp32 or bf16. Masters, optimizer state, the residual
// stream, norms, softmax and losses are f32 either way.
//
// auto takes bf16 where the processor has units for it and its products are measured to be faster
// (kernels/cpu_tuning.h); a run that continues keeps what was measured when it began. Without such units
// LibTorch's bf16 products run at a tenth of fp32, so there an explicit bf16 warns with both rates. Throws
// ConfigError for another name.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/log.h"
#include "kernels/cpu_tuning.h"
#include "models/parameters.h"

namespace retort::train {

// The dtype for models::bind_working. Collective: rank 0 decides, all agree. Pass what a process measured at
// its start; without it rank 0 measures now, unless fp32 is asked for.
at::ScalarType choose_precision(const std::string& precision, comm::Comm& comm, Log& log,
                                const std::function<kernels::CpuTuning()>& tuning = kernels::tune_cpu);

// "bf16" when any working copy is, else "fp32".
std::string precision_of(const models::Parameters& parameters);
at::ScalarType dtype_of(const std::string& precision);  // of "fp32" or "bf16", as a checkpoint says it
std::vector<std::string> precision_names();

}  // namespace retort::train
