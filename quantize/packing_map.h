// A WeightMap whose values lie on grids: what a file packs, whichever way the codes were found.
#pragma once

#include "models/weight_map.h"
#include "quantize/grid.h"

namespace retort::quantize {

class PackingMap : public models::WeightMap {
 public:
  virtual bool enabled() const { return true; }                       // off, it is the identity
  virtual const Grid* grid_of(const models::Parameter& p) const = 0;  // nullptr: its values stay f32
  // Of a parameter with a grid, enabled: dequantize_blocks(quantize(p)) is apply(p, p.master), bit for bit.
  virtual Quantized quantize(const models::Parameter& p) const = 0;
  // |w - q| / |w|, Euclidean, of the weights that were rounded; 0 without a grid.
  virtual double relative_error(const models::Parameter& p) const = 0;

  // The form of apply(p, p.master) in a GGUF: from the same codes; f32 where there are none.
  formats::PackedTensor pack(const models::Parameter& p) const;
};

}  // namespace retort::quantize
