#include "quantize/report.h"

namespace retort::quantize {

std::vector<TensorReport> report(const PackingMap& map, const models::Parameters& parameters) {
  std::vector<TensorReport> rows;
  for (const models::Parameter& p : parameters.unique()) {
    if (p.role == models::Role::kScale) continue;  // part of its weight's bits
    TensorReport row{.name = p.name, .elements = p.numel()};
    if (const Grid* grid = map.grid_of(p); grid != nullptr && map.enabled()) {
      row.grid = grid->name;
      row.bits = grid->bits_per_weight;
      row.relative_error = map.relative_error(p);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

double packed_bytes(const std::vector<TensorReport>& rows) {
  double bits = 0;
  for (const TensorReport& row : rows) bits += row.bits * static_cast<double>(row.elements);
  return bits / 8;
}

double bits_per_weight(const std::vector<TensorReport>& rows) {
  int64_t elements = 0;
  for (const TensorReport& row : rows) elements += row.elements;
  return elements == 0 ? 0 : 8 * packed_bytes(rows) / static_cast<double>(elements);
}

}  // namespace retort::quantize
