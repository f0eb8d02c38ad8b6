// What Llama and its descendants (Phi-3, Qwen, Gemma) have in common in config.json and in GGUF: sizes, RMS
// norm, rotary positions, gated FFN, and the tensor names, which follow from the spec's choices. A family's
// file says what differs.
#pragma once

#include <string>
#include <vector>

#include "models/families/gguf_keys.h"
#include "models/families/hf_config.h"
#include "models/foreign.h"

namespace retort::models {

// Sizes, norm_eps and tied head; absent keys keep the values of `spec`. Rotary positions: read_hf_rope.
void read_hf_form(const HfConfig& config, DecoderSpec& spec);
formats::Json write_hf_form(const DecoderSpec& spec, const char* architecture, const char* model_type);

// DataError when some layers have a window (Qwen's use_sliding_window and layer_types).
void must_attend_fully(const HfConfig& config);

// Sizes, norm_eps, rotary base; scaling none or linear, or `other`, which the family reads itself.
void read_gguf_form(const GgufKeys& keys, DecoderSpec& spec, std::string_view other = "none");
formats::GgufMetadata write_gguf_form(const DecoderSpec& spec, const std::string& architecture);

enum class Projections { kApart, kFused };  // fused: q|k|v and gate|up are one tensor each (Phi-3)
enum class Rotation { kHalves, kInterleaved };

std::vector<ForeignTensor> hf_form_tensors(const DecoderSpec& spec, Projections projections);
std::vector<ForeignTensor> gguf_form_tensors(const DecoderSpec& spec, Projections projections,
                                             Rotation rotation);

}  // namespace retort::models
