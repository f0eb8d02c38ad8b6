// The layers of a pre-norm transformer, without embedding and final norm: x_BTD to the residual stream, f32. Their tensors
// are declared below a prefix of a model's Parameters, so that one model can have several stacks; decoder.h
// has their names and what is shared. The spec's vocabulary, context and embedding choices have no effect
// here. Rank and thread rule: the model's. B batch, T tokens, D width.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/rope.h"
#include "models/decoder_spec.h"
#include "models/kv_cache.h"
#include "models/linear.h"
#include "models/model.h"
#include "models/weight_groups.h"

namespace retort::models {

// The residual stream, and a branch's part of it that is not added yet: the norm that comes next adds it, in one pass.
struct Residual {
  at::Tensor x_BTD, branch_BTD = {};  // undefined: there is none
  at::Tensor sum() const { return branch_BTD.defined() ? x_BTD + branch_BTD : x_BTD; }
};

struct Norm {
  const Parameter* weight = nullptr;
  const Parameter* bias = nullptr;  // layer norm
  double eps = 0;
  bool unit_offset = false;

  at::Tensor operator()(const at::Tensor& x) const;
  at::Tensor operator()(Residual& stream) const;  // of the sum, which the stream is from then on
};

// Declares the tensors below "prefix" as parameters of their own, or as aliases of those below "owner".
class Scope {
 public:
  Scope(Parameters& parameters, const DecoderSpec& spec, std::string prefix, std::string owner)
      : parameters_(parameters), spec_(spec), prefix_(std::move(prefix)), owner_(std::move(owner)) {}

  Parameter* tensor(const std::string& name, at::IntArrayRef shape, Role role, int64_t depth = 0) const;
  Norm norm(const std::string& name) const { return norm(name, spec_.width); }
  Norm norm(const std::string& name, int64_t width) const;  // of the spec's kind
  Linear linear(const std::string& name, int64_t out, int64_t in, bool bias, int64_t depth = 0) const;
  void adapt(const std::string& name) const;  // with a low-rank adapter of the spec's rank

 private:
  Parameters& parameters_;
  const DecoderSpec& spec_;
  std::string prefix_, owner_;
};

// What all layers of one call share.
struct LayerCall {
  at::Tensor positions_BT;
  kernels::AttentionMask mask = {};  // the window is each layer's own
  bool past_original = false;        // longrope: the sequence is longer than its original context
  KvCache* cache = nullptr;
  std::vector<LayerTap>* taps = nullptr;
  const GroupReads* reads = nullptr;  // layer n is group n + 1

  LayerTap* tap(int64_t layer) const;  // of this layer, or none
};

class Layers {
 public:
  // Declares PREFIXlayers.N.*. `residual_depth`: how many executed layers join the same residual stream; 0:
  // these.
  Layers(Parameters& parameters, DecoderSpec spec, std::string prefix, int64_t residual_depth = 0);
  Residual run(int64_t n, Residual stream, const LayerCall& call) const;  // layer n
  Residual operator()(at::Tensor x_BTD, const LayerCall& call) const;     // all of them
  // Rotary tables of positions below `positions`; call before run(), cheap when they are there.
  void prepare(int64_t positions, const at::Device& device);
  std::vector<const Parameter*> weights(int64_t n) const;  // that layer n reads, but for adapters

 private:
  struct Layer {
    Norm attn_norm, ffn_norm;
    Norm q_norm, k_norm, attn_sub_norm, attn_post_norm, ffn_sub_norm, ffn_post_norm;  // no weight: absent
    Linear q, k, v, o, gate, up, down;
  };
  Layer declare(Parameters& parameters, const std::string& prefix, int64_t n, int64_t depth) const;
  const kernels::RopeTables& rope_tables(int64_t n, const LayerCall& call) const;
  at::Tensor attention(int64_t n, const at::Tensor& normed_BTD, const LayerCall& call) const;
  at::Tensor feed_forward(const Layer& layer, const at::Tensor& normed_BTD) const;

  DecoderSpec spec_;
  std::vector<Layer> layers_;                          // executed
  kernels::RopeTables rope_, rope_long_, rope_local_;  // long: longrope past its original context
};

}  // namespace retort::models
