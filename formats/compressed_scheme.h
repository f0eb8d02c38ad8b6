// How compressed-tensors' config.json names the form of weights.
#pragma once

#include <cstdint>
#include <string>

namespace retort::formats {

struct CompressedScheme {
  std::string type;  // "int", "float"
  int64_t bits = 0;
  std::string strategy;    // "channel", "group", "tensor", "tensor_group"
  int64_t group_size = 0;  // of "group"
  // NVFP4: the groups' scales are relative to one number of the whole tensor.
  bool has_global_scale() const { return strategy == "tensor_group"; }
};

}  // namespace retort::formats
