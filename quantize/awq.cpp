#include "quantize/awq.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "quantize/gptq.h"

namespace retort::quantize {
namespace {

using models::Parameter;

constexpr int kSteps = 20;

// "layers.3.attn.q.weight" -> {"layers.3.", "attn.q"}; other names have no part.
struct Place {
  std::string layer, part;
};
Place place_of(const std::string& use) {
  const size_t number = use.find('.'), part = use.find('.', number + 1), end = use.rfind(".weight");
  if (!use.starts_with("layers.") || part == std::string::npos || end == std::string::npos || end <= part)
    return {};
  return {use.substr(0, part + 1), use.substr(part + 1, end - part - 1)};
}

// What makes the input of `part` in the same layer, by the decoder's names; "" where 1 / s has no place.
std::string maker_of(const std::string& part, const models::DecoderSpec& spec) {
  if (part == "attn.q") return "attn_norm";
  if (spec.sub_norms && part == "attn.o") return "attn.sub_norm";
  if (spec.sub_norms && part == "ffn.down") return "ffn.sub_norm";
  if (part == "attn.o" && spec.heads == spec.kv_heads) return "attn.v";
  if (spec.ffn == models::FfnKind::kGelu) return part == "ffn.up" ? "ffn_norm" : "";
  if (part == "ffn.gate") return "ffn_norm";
  return part == "ffn.down" ? "ffn.up" : "";
}

// The outputs of p become 1 / s of what they were.
void divide_outputs(Parameter& p, const at::Tensor& scales_I) {
  if (p.shape.size() == 2) {
    p.master.div_(scales_I.unsqueeze(1));
  } else {
    p.master.add_(p.offset).div_(scales_I).sub_(p.offset);
  }
}

}  // namespace

at::Tensor awq_scales(const InputGroup& group,
                      const std::function<at::Tensor(const Parameter&, const at::Tensor&)>& round) {
  const at::NoGradGuard no_grad;
  const at::Tensor rms_I =
      (group.second_moment_II.diagonal() / static_cast<double>(group.tokens)).sqrt().clamp_min(1e-4);
  at::Tensor best_I;
  double least = std::numeric_limits<double>::infinity();
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor power_I = rms_I.pow(static_cast<double>(step) / kSteps);
    const at::Tensor scales_I = (power_I / (power_I.max() * power_I.min()).sqrt()).to(at::kFloat);
    double error = 0;
    for (const Parameter* p : group.matrices)
      error += output_error(p->master, round(*p, p->master * scales_I) / scales_I, group.second_moment_II);
    if (error >= least) continue;
    least = error;
    best_I = scales_I;
  }
  check<NonFiniteError>(best_I.defined(), "[awq] {}: its weights and calibration inputs must be finite",
                        group.matrices.front()->name);
  return best_I;
}

std::vector<Parameter*> input_makers(models::Model& model, const InputGroup& group) {
  models::Parameters& parameters = model.parameters();
  std::vector<Parameter*> out;
  for (const std::string& use : group.matrices.front()->uses) {
    const Place place = place_of(use);
    const std::string maker = maker_of(place.part, model.spec());
    if (maker.empty()) return {};
    for (const char* kind : {".weight", ".bias"}) {
      const std::string name = place.layer + maker + kind;
      if (!parameters.contains(name)) continue;
      Parameter* p = &parameters.at(name);
      if (std::find(out.begin(), out.end(), p) == out.end()) out.push_back(p);
    }
  }
  return out;
}

void fold_scales(models::Model& model, InputGroup& group, const at::Tensor& scales_I) {
  const at::NoGradGuard no_grad;
  for (Parameter* p : input_makers(model, group)) divide_outputs(*p, scales_I);
  for (Parameter* p : group.matrices) p->master.mul_(scales_I);
  const at::Tensor s_I = scales_I.to(at::kDouble);
  group.second_moment_II.div_(s_I.unsqueeze(0)).div_(s_I.unsqueeze(1));
}

}  // namespace retort::quantize
