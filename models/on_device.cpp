#include "models/on_device.h"

#include <ATen/core/grad_mode.h>

#include "models/moved_codes.h"

namespace retort::models {
namespace {

void replace(at::Tensor& working, const at::Tensor& by) {
  working = by.detach().requires_grad_(working.requires_grad());
}

}  // namespace

void move_to(Parameters& parameters, const at::Device& device) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) {
    const bool shares = !p.codes && p.working.is_alias_of(p.master);
    if (shares || !p.frozen) p.master = p.master.to(device);
    replace(p.working, shares ? p.placement.used.of(p.master) : p.working.to(device));
    if (p.codes) p.codes = moved_codes(p.codes, device);
    p.placement.device = device;
  }
}

void move_working_to(Parameters& parameters, const at::Device& device) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) {
    replace(p.working, p.working.to(device));
    if (p.codes) p.codes = moved_codes(p.codes, device);
  }
}

at::Device device_of(const Parameters& parameters) { return parameters.unique().front().working.device(); }

}  // namespace retort::models
