// Which grids work where masters are on a device (kernels/cuda_ops.h): those whose scales are learned, and those whose
// `fit` is a formula that kernels have. tests/cuda_emulation/fake_quantize_test.cpp holds each to its grid, bit for bit.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/scale_fit.h"
#include "quantize/packing_map.h"

namespace retort::quantize {

std::optional<kernels::ScaleFit> device_fit(const Grid& grid);  // none: learned, or searched
bool works_on_device(const Grid& grid);
// The grids of the parameters that do not, by name: their masters travel to the CPU and values back, once a step.
std::vector<std::string> staged_grids(const PackingMap& map, const models::Parameters& parameters);

}  // namespace retort::quantize
