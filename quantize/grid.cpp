#include "quantize/grid.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace retort::quantize {

Grid q8_0_grid();               // q8_0.cpp
Grid q4_0_grid();               // q4_0.cpp
Grid q4_1_grid();               // q4_1.cpp
Grid q4_k_grid();               // q4_k.cpp
Grid q6_k_grid();               // q6_k.cpp
Grid mxfp4_grid();              // mxfp4.cpp
Grid ternary_grid();            // ternary.cpp
Grid ternary_row_grid();        // ternary.cpp
Grid seq_ternary_grid();        // seq.cpp
Grid seq2_grid();               // seq.cpp
Grid lsq3_grid();               // lsq.cpp
Grid lsq4_grid();               // lsq.cpp
Grid binary_grid();             // binary.cpp
Grid int4_grid(int64_t group);  // integer.cpp
Grid int8_grid(int64_t group);  // integer.cpp
Grid float8_grid();             // float8.cpp
Grid nvfp4_grid();              // nvfp4.cpp

const Registry<Grid>& grids() {
  static const Registry<Grid> table(
      "grid", {
                  q8_0_grid(),    q4_0_grid(),        q4_1_grid(),   q4_k_grid(),  q6_k_grid(),
                  mxfp4_grid(),   lsq4_grid(),        lsq3_grid(),   seq2_grid(),  seq_ternary_grid(),
                  ternary_grid(), ternary_row_grid(), binary_grid(), int8_grid(0), int4_grid(0),
                  int4_grid(32),  int4_grid(128),     float8_grid(), nvfp4_grid(),
              });
  return table;
}

Quantized Grid::quantize(const at::Tensor& x) const {
  const at::NoGradGuard no_grad;
  Quantized out;
  out.scales = fit(x, {});
  out.codes = round(x, out.scales);
  return out;
}

void Grid::fake_quantize(const at::Tensor& x, const at::Tensor& values) const {
  if (!rows_alone) return kernels::round_values(x, fit(x, {}), rounding, values);
  // Rows whose values a core's second cache holds, with what is made of them.
  const int64_t run = std::max<int64_t>(1, at::internal::GRAIN_SIZE / std::max<int64_t>(1, x.size(-1)));
  at::parallel_for(0, x.size(0), run, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (int64_t row = begin; row < end; row += run) {
      const int64_t rows = std::min(run, end - row);
      const at::Tensor part = x.narrow(0, row, rows);
      kernels::round_values(part, fit(part, {}), rounding, values.narrow(0, row, rows));
    }
  });
}

formats::PackedTensor Grid::pack(const Quantized& quantized) const {
  std::vector<std::string> known;
  for (const Grid& other : grids())
    if (other.ggml) known.push_back(other.name);
  check<ConfigError>(ggml.has_value(), "grid {} has no GGUF type that stores it; those that have: {}", name,
                     fmt::join(known, ", "));
  return formats::pack_blocks(*ggml, quantized);
}

Grid ggml_formula(formats::GgmlType type) {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(type);
  return {.name = info.name,
          .block = info.block,
          .span = info.block,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = formats::block_rounding(type),
          .ggml = type,
          .compressed = {},
          .learned = {},
          .fit = [type](const at::Tensor& x, const at::Tensor& importance) {
            return formats::fit_blocks(type, x, importance);
          }};
}

const Grid* in_q4_0_blocks(const Grid& grid) {
  static const Registry<Grid> table = [] {
    const formats::GgmlTypeInfo& q4_0 = formats::ggml_type_info(formats::GgmlType::Q4_0);
    const kernels::Rounding codes = formats::block_rounding(q4_0.type);
    std::vector<Grid> rows;
    for (Grid row : grids()) {
      const bool held = row.rounding.lowest >= codes.lowest && row.rounding.highest <= codes.highest;
      if (row.span != 0 || row.block <= q4_0.block || !row.ggml || !held) continue;
      row.block = q4_0.block;
      row.bits_per_weight = q4_0.bits_per_weight();
      row.ggml = q4_0.type;
      rows.push_back(std::move(row));
    }
    return Registry<Grid>("grid in Q4_0's blocks", std::move(rows));
  }();
  return table.find(grid.name);
}

at::Tensor as_f16(const at::Tensor& scale) { return scale.clamp_max(65504.0).to(at::kHalf).to(at::kFloat); }

std::string misfit(const Grid& grid, const std::string& tensor, int64_t in_features) {
  if (in_features % grid.block == 0) return "";
  std::vector<std::string> fitting;
  for (const Grid& other : grids())
    if (in_features % other.block == 0) fitting.push_back(other.name);
  return fmt::format("{}: rows must be a multiple of {} for {}, got {}; grids that fit: {}", tensor,
                     grid.block, grid.name, in_features,
                     fitting.empty() ? "none" : fmt::format("{}", fmt::join(fitting, ", ")));
}

}  // namespace retort::quantize
