// The precision in which working weights are held and multiplied: fp32 or bf16. Masters, optimizer state, the
// residual stream, norms, softmax and losses are f32 either way.
//
// auto takes bf16 where the processor multiplies faster in it (kernels/product.h), never by a stopwatch: each start, and a
// teacher's after a resume, gives the same. Without such units LibTorch's bf16
// products run at a tenth of fp32, so an explicit bf16 causes a warning with both rates there. Throws
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

// The dtype for models::bind_working. Collective: rank 0 decides, all agree. `tuning` gives what the process
// measured at its start; without it rank 0 measures now, unless the precision is fp32.
at::ScalarType choose_precision(const std::string& precision, comm::Comm& comm, Log& log,
                                const std::function<kernels::CpuTuning()>& tuning = kernels::tune_cpu);

// "bf16" when any working copy is, else "fp32".
std::string precision_of(const models::Parameters& parameters);
at::ScalarType dtype_of(const std::string& precision);  // of "fp32" or "bf16", as in a checkpoint
std::vector<std::string> precision_names();

}  // namespace retort::train
