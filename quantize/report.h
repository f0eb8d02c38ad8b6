// What grids cost and save, tensor by tensor: bits, and the error against the weights that were rounded. One
// row a unique parameter of the model; nothing here changes a weight.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "quantize/packing_map.h"

namespace retort::quantize {

struct TensorReport {
  std::string name;
  std::string grid = "f32";
  int64_t elements = 0;
  double bits = 32;                    // a weight, scales included
  double relative_error = 0;           // |w - q| / |w|, Euclidean; 0 for a tensor of zeros
  std::optional<double> on_grid = {};  // CodesMap::on_grid(), where that was asked
};

// In declaration order, of the map as it is now (all f32 while it is off).
std::vector<TensorReport> report(const PackingMap& map, const models::Parameters& parameters);

// Bytes of all rows, and bits a stored weight: sharing counts once.
double packed_bytes(const std::vector<TensorReport>& rows);
double bits_per_weight(const std::vector<TensorReport>& rows);

}  // namespace retort::quantize
