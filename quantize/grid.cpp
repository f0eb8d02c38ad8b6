#include "quantize/grid.h"

namespace retort::quantize {

Grid q8_0_grid();  // q8_0.cpp
Grid q4_0_grid();  // q4_0.cpp

const Registry<Grid>& grids() {
  static const Registry<Grid> table("grid", {
                                                q8_0_grid(),
                                                q4_0_grid(),
                                            });
  return table;
}

std::string misfit(const Grid& grid, const std::string& tensor, int64_t in_features) {
  if (in_features % grid.block == 0) return "";
  std::vector<std::string> fitting;
  for (const Grid& other : grids())
    if (in_features % other.block == 0) fitting.push_back(other.name);
  return fmt::format("{}: rows must be a multiple of {} for {}, got {}; grids that fit: {}", tensor,
                     grid.block, grid.name, in_features,
                     fitting.empty() ? "none" : fmt::format("{}", fmt::join(fitting, ", ")));
}

void check_fits(const Grid& grid, const std::string& tensor, int64_t in_features) {
  const std::string why = misfit(grid, tensor, in_features);
  check<ConfigError>(why.empty(), "[quantize] {}", why);
}

}  // namespace retort::quantize
