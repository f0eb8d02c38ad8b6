// Integer codes and the scales that runs of them share: what quantization makes of a tensor.
//   value = code * scale + offset        one f32 product, then one f32 sum where there is an offset
//
// Codes are numbers of a small type and scales are those that the file holds, so a reader of the file
// computes the same values: an export is equal, bit for bit, to the weights that were trained. Pure functions
// of dense CPU tensors, parallel over groups, with the same bits on any number of threads. Compiled without
// contraction: a product is rounded before anything is added. Throws ShapeError.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace retort::kernels {

// [.., groups] each; a group is row / groups consecutive columns. One tensor's scales, or one group's.
struct BlockScales {
  at::Tensor scale;    // f32: multiplies a code
  at::Tensor offset;   // f32: is added; undefined: nothing is
  at::Tensor divisor;  // f32: what rounding divides by where that is not `scale` (ggml's formulas find a code
                       // with the scale before f16 rounds it); undefined: scale
  at::Tensor header;   // u8 [.., n]: other bytes of the file: those that a K-quant's scale and offset came
                       // from, or that NVFP4's scales share

  int64_t groups() const { return scale.size(-1); }
  const at::Tensor& rounding_divisor() const { return divisor.defined() ? divisor : scale; }
  BlockScales group(int64_t g) const;  // views with one group; without the header, which is not for one
};
// One after another along the row.
BlockScales concatenate(const std::vector<BlockScales>& parts);

struct BlockCodes {
  at::Tensor codes;  // i8 (or float8_e4m3fn), the tensor's shape
  BlockScales scales;
};
at::Tensor dequantize_blocks(const BlockCodes& blocks);  // f32

// How a value's code is found. x is the value less the offset, d the divisor.
enum class RoundRule {
  kNearestEven,  // x / d, halves to even: K-quants, and the frameworks' integer grids
  kNearestAway,  // x * (1 / d), halves away from zero: Q8_0, TQ1_0, TQ2_0
  kTruncate,     // floor(x * (1 / d) + 1/2 - lowest) + lowest: Q4_0, Q5_0
  kOdd,          // the nearest odd number to x / d: levels in the middle of equal intervals (SEQ, ParetoQ)
  kSign,         // 1 for x >= 0, else -1
  kFloat4,       // twice an E2M1 number, so that it is whole: 0 1 2 3 4 6 8 12; ties towards zero (ggml)
  kFloat4Even,   // the same, ties to the number whose last bit is 0: 0 2 4 8 (compressed-tensors)
  kFloat8,       // an E4M3 number (codes are float8_e4m3fn), nearest even, clamped to +-448
};
struct Rounding {
  RoundRule rule = RoundRule::kNearestEven;
  int lowest = 0, highest = 0;  // of the codes; what lies outside becomes the nearer of them
};
// Codes of x [.., row] (f32) under scales [.., groups] whose leading sizes are the same. x may be a few
// columns of one group, with that group's scale. Where the divisor is 0 every code is that of x = 0, or, with
// kNearestEven, the lowest. NaN becomes the highest.
at::Tensor round_codes(const at::Tensor& x, const BlockScales& scales, const Rounding& rounding);
// Writes dequantize_blocks({round_codes(x, scales, rounding), scales}), bit for bit, into `values`, dense f32
// of x's shape, in one pass. Training on a grid does it once a step. A NaN of kFloat8 stays NaN.
void round_values(const at::Tensor& x, const BlockScales& scales, const Rounding& rounding,
                  const at::Tensor& values);

}  // namespace retort::kernels
