// A model brought to a device. Until then everything is on the CPU: initialising, loading, cutting, fitting scales, so that
// the bits of a start do not depend on the device. Call these after bind_working() (weight_map.h), and before
// hooks are set, optimizers made or objectives built of the working copies, which become other tensors.
#pragma once

#include "models/model.h"
#include "models/weight_map.h"

namespace retort::models {

// Masters and working copies; they still share storage where they did. What no step changes stays on the host where it is
// not multiplied itself: a frozen master that has a working copy. Values kept as codes move as codes, once for all models
// that share them (moved_codes.h).
void move_to(Parameters& parameters, const at::Device& device);
// Of a model that is not trained: what it multiplies with.
void move_working_to(Parameters& parameters, const at::Device& device);

at::Device device_of(const Parameters& parameters);  // of the working copies

}  // namespace retort::models
