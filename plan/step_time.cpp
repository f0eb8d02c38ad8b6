#include "plan/step_time.h"

#include <algorithm>

#include "core/error.h"

namespace retort::plan {

StepTime step_time(const StepWork& work, const Device& device) {
  double rate = device.rate(work.bf16);
  check<ConfigError>(rate > 0, "[plan] the rates of device {} are not known: they must be measured first",
                     device.name);
  if (device.shared) rate /= static_cast<double>(work.ranks);
  StepTime out;
  out.efficiency = device.share * work.width / (work.width + device.half_width);
  out.compute = work.flops / (rate * out.efficiency);
  out.bandwidth = work.ranks > device.ranks_a_node ? device.network_bandwidth : device.node_bandwidth;
  if (work.ranks > 1 && out.bandwidth > 0) {
    const double backward = out.compute * 2.0 / 3.0 / static_cast<double>(work.micro_batches);
    const double hidden = backward * (1.0 - 1.0 / static_cast<double>(work.layers));
    out.exposed = std::max(0.0, work.bytes / out.bandwidth - hidden);
  }
  return out;
}

}  // namespace retort::plan
