// What the layers keep of the forward pass for the backward one, as kernels/ and models/layers.cpp save it: a list of
// tensors with their width a token. D width, Q = heads * head_dim, G the same of key heads, F FFN width, H heads, e bytes
// of a working weight (4 or 2). A layer of today's kernels, SwiGLU and RMS norms:
//
//   norms       2 (4 D + 4)            their f32 inputs, and 1/rms (a layer norm: mean and 1/deviation)
//   attention   e (D + 2 Q + 2 G) + 4 H    the products' input, q, k, v and y, and the log-sum-exp
//   ffn         e (D + 3 F)            the products' input, gate, up, and the input of the last product
//
// Without a gate 2 F. Whatever a frozen weight multiplies is not kept for it; a low-rank adapter keeps it in f32, with its
// own product of `rank`. Nothing here knows of ranks. Pure functions; any thread.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"

namespace retort::plan {

struct Kept {
  std::string what;
  double width = 0;  // elements a token
  double bytes = 0;  // of an element
};

double bytes_a_token(const std::vector<Kept>& kept);

struct ActivationOptions {
  bool bf16 = false;
  bool documents = false;       // isolated: attention keeps their numbers
  bool rounded_inputs = false;  // each product keeps its rounded input (quantize/activations.h)
};

// Of all executed layers and the final norm, added up by what they are. Byte-patch models: their core once a patch of
// models::kBytesPerPatch bytes; the blocks of stlm are an estimate.
std::vector<Kept> kept_activations(const models::Model& model, const ActivationOptions& options);

// Bytes a token of the halves of an executed layer, whose tensors are "layers.3....", in the order of the forward pass;
// and of the final norm.
struct LayerKept {
  std::string prefix;
  double attention = 0, network = 0;
};
std::vector<LayerKept> kept_by_layer(const models::Model& model, const ActivationOptions& options);
double kept_by_final_norm(const models::Model& model);

// Bytes a token of the widest moment of a backward pass beyond what is kept: the gradient of the residual stream and those
// of a gated network.
double backward_bytes_a_token(const models::Model& model, bool bf16);
// Of a forward pass without gradients: the residual stream twice, and the widest tensors of a layer.
double forward_bytes_a_token(const models::Model& model, bool bf16);

}  // namespace retort::plan
