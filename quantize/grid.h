// A grid: tensor <-> codes and scales, and the file types that hold exactly those. One file and one row each.
// What training evaluates is dequantize(quantize(master)) in f32; what an export packs are the same codes, so
// the file holds the weights that were judged, bit for bit.
//
//   value = code * scale [+ offset]       codes by `rounding`, scales by `fit` or learned (learned_scale.h)
//
// Fitting and rounding are apart, so that scales can be fixed first (by training, or by a quantizer such as
// GPTQ from the columns that a scale is of: `span`) and codes found under them, a column at a time.
// Pure, deterministic functions of dense f32 CPU tensors [.., in]: equal input gives equal codes, on any
// thread and any machine.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/registry.h"
#include "formats/compressed_scheme.h"
#include "formats/ggml_blocks.h"

namespace retort::quantize {

using Scales = kernels::BlockScales;  // [.., groups]; group(g) and concatenate() take them apart and together
using Quantized = kernels::BlockCodes;  // codes and scales
using kernels::dequantize_blocks;

using formats::CompressedScheme;

// Scales that training moves (LSQ, Esser et al. 2020, arXiv 1902.08153; SEQ and elastic binarisation,
// ParetoQ, arXiv 2502.02631). With v = w / scale and g the gradient of the value:
//   d/dw = g where low <= v <= high, else 0;   d/dscale = gamma * sum g (code - v | inside; code | outside)
struct LearnedRule {
  double low = 0, high = 0;
  bool follows = true;  // false: code - v is code everywhere (binary)
  int64_t levels = 1;   // Qp of gamma = 1 / sqrt(numel * Qp)
};

struct Grid {
  std::string name;        // "q4_0"
  int64_t block = 1;       // a row's length must divide by it
  int64_t span = 0;        // columns whose scales are fixed together; 0: the whole row (or tensor)
  bool rows_alone = true;  // a row's scales depend on that row only, not on the tensor
  bool searches = false;   // `fit` searches, and weighs errors by the importance
  double bits_per_weight =
      0;  // in the file; a row's own scale not counted where the type has no place for one
  kernels::Rounding rounding;
  std::optional<formats::GgmlType> ggml;       // the GGUF type that stores exactly its codes and scales
  std::optional<CompressedScheme> compressed;  // the compressed-tensors scheme that does
  std::optional<LearnedRule> learned;
  // The scales that x [rows, n spans] gives itself; for a learned grid, those that training starts from.
  // importance: undefined, or f32 [n spans] (mean squared activations): what `searches` weighs errors by it.
  std::function<Scales(const at::Tensor& x, const at::Tensor& importance)> fit;

  at::Tensor round(const at::Tensor& x, const Scales& scales) const {
    return kernels::round_codes(x, scales, rounding);
  }
  Quantized quantize(const at::Tensor& x) const;
  // Writes dequantize_blocks(quantize(x)), bit for bit, into `values`, dense f32 of x's shape [rows, in].
  // Where rows stand alone, they are fitted and rounded while a cache holds them, in parallel.
  void fake_quantize(const at::Tensor& x, const at::Tensor& values) const;
  // ConfigError without a GGUF type; ShapeError for codes or scales of another grid, or not finite.
  formats::PackedTensor pack(const Quantized& quantized) const;
};

const Registry<Grid>& grids();

// A grid whose every formula is ggml's.
Grid ggml_formula(formats::GgmlType type);
// f16 numbers (nearest even) as f32, no larger than its largest: what a scale is before weights are made of
// it.
at::Tensor as_f16(const at::Tensor& scale);

// The same grid for rows that its type's blocks do not divide, stored as Q4_0, of which every block has the row's scale: 4.5
// bits a weight. nullptr where Q4_0 does not hold its codes, or a scale is of fewer columns than a row.
const Grid* in_q4_0_blocks(const Grid& grid);

// Why rows of `in_features` do not fit the grid, with the grids that would; "" when they do.
std::string misfit(const Grid& grid, const std::string& tensor, int64_t in_features);

}  // namespace retort::quantize
