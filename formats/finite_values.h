// The values that a model's file may hold: finite ones. Software that reads a NaN or an infinity opens the file
// without complaint and answers with nonsense, so every exporter checks here. `where` begins the message, as
// "[export]"; the tensor's first offending place is named. Pure; any thread.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <string_view>

#include "formats/ggml_blocks.h"

namespace retort::formats {

// Of weights as they are: NonFiniteError unless all are finite.
void check_finite(std::string_view where, const std::string& name, const at::Tensor& values);

// Of what was made of finite weights for a file, in the file's type: ConfigError where a value is beyond its range.
// Integers always pass.
void check_in_range(std::string_view where, const std::string& name, const at::Tensor& written);
void check_in_range(std::string_view where, const std::string& name, const PackedTensor& written);
// The same of a parameter's scales on a grid.
void check_scales(std::string_view where, const std::string& name, const at::Tensor& scale);

}  // namespace retort::formats
