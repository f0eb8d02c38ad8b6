#include "quantize/device_fit.h"

#include <set>

namespace retort::quantize {
namespace {

using kernels::Fit;

struct Row {
  std::string name;
  kernels::ScaleFit fit;
};

const Registry<Row>& table() {
  static const Registry<Row> rows("grid of a device", {
                                                          {"q8_0", {Fit::kQ8_0, 32}},
                                                          {"q4_0", {Fit::kQ4_0, 32}},
                                                          {"q4_1", {Fit::kQ4_1, 32}},
                                                          {"ternary", {Fit::kMeanOfAll}},
                                                          {"ternary_row", {Fit::kMean}},
                                                          {"int8_row", {Fit::kInteger, 0, 127.5}},
                                                          {"int4_row", {Fit::kInteger, 0, 7.5}},
                                                          {"int4_g32", {Fit::kInteger, 32, 7.5}},
                                                          {"int4_g128", {Fit::kInteger, 128, 7.5}},
                                                          {"fp8", {Fit::kFloat8}},
                                                      });
  return rows;
}

}  // namespace

std::optional<kernels::ScaleFit> device_fit(const Grid& grid) {
  for (const Row& row : table())
    if (row.name == grid.name) return row.fit;
  return {};
}

bool works_on_device(const Grid& grid) { return grid.learned || device_fit(grid); }

std::vector<std::string> staged_grids(const PackingMap& map, const models::Parameters& parameters) {
  std::set<std::string> names;
  for (const models::Parameter& p : parameters.unique())
    if (const Grid* grid = map.grid_of(p); grid != nullptr && !works_on_device(*grid))
      names.insert(grid->name);
  return {names.begin(), names.end()};
}

}  // namespace retort::quantize
