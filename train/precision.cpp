#include "train/precision.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/cpu.h"
#include "core/error.h"
#include "core/nearest.h"

namespace retort::train {
namespace {

bool wants_bf16(const std::string& precision, Log& log, const std::function<kernels::CpuTuning()>& tuning) {
  if (precision == "fp32") return false;
  const kernels::CpuTuning cpu = tuning();
  if (precision == "bf16" && !cpu.bf16_units)
    log.warn("precision bf16 on a processor without bf16 units ({}): {}; precision auto would take fp32",
             cpu_features().model, cpu.summary());
  if (precision == "bf16") return true;
  log.info("precision {}: {}", cpu.prefers_bf16 ? "bf16" : "fp32", cpu.summary());
  return cpu.prefers_bf16;
}

}  // namespace

at::ScalarType choose_precision(const std::string& precision, comm::Comm& comm, Log& log,
                                const std::function<kernels::CpuTuning()>& tuning) {
  const std::vector<std::string> names = precision_names();
  check<ConfigError>(std::find(names.begin(), names.end(), precision) != names.end(),
                     "[precision] must be one of {}, got \"{}\"{}", fmt::join(names, ", "), precision,
                     did_you_mean(precision, names));
  const bool mine = comm.rank() == 0 && wants_bf16(precision, log, tuning);
  return comm.reduce(int64_t{mine}, comm::Reduce::kMax) != 0 ? at::kBFloat16 : at::kFloat;
}

std::string precision_of(const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique())
    if (p.working.scalar_type() == at::kBFloat16) return "bf16";
  return "fp32";
}

at::ScalarType dtype_of(const std::string& precision) {
  check<CheckpointError>(precision == "fp32" || precision == "bf16",
                         "[precision] must be fp32 or bf16, got \"{}\"", precision);
  return precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

std::vector<std::string> precision_names() { return {"auto", "fp32", "bf16"}; }

}  // namespace retort::train
