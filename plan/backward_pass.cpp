#include "plan/backward_pass.h"

#include <algorithm>
#include <set>

namespace retort::plan {
namespace {

using models::Parameter;
using models::Role;

bool is_matrix(Role role) { return role == Role::kMatrix || role == Role::kEmbedding || role == Role::kHead; }

bool looked_up(const std::string& use) { return use.starts_with("embed") || use.starts_with("positions"); }

// The stage of a use: 0 the head's, then network and attention of each layer from the last, at the end the embedding's.
size_t stage_of(const std::string& use, const std::vector<LayerKept>& layers) {
  for (size_t n = 0; n < layers.size(); ++n)
    if (use.starts_with(layers[n].prefix))
      return 1 + 2 * (layers.size() - 1 - n) + (use.starts_with(layers[n].prefix + "attn") ? 1 : 0);
  return looked_up(use) ? 1 + 2 * layers.size() : 0;
}

}  // namespace

BackwardPass backward_pass(const models::Model& model, const ActivationOptions& options) {
  const std::vector<LayerKept> layers = kept_by_layer(model, options);
  BackwardPass out;
  out.stages.resize(2 + 2 * layers.size());
  out.stages.front() = {.kept = kept_by_final_norm(model), .group = layers.size() + 1};
  for (size_t n = 0; n < layers.size(); ++n) {
    const size_t network = 1 + 2 * (layers.size() - 1 - n);
    out.stages[network] = {.kept = layers[n].network, .group = n + 1, .layer = true};
    out.stages[network + 1] = {.kept = layers[n].attention, .group = n + 1, .layer = true};
  }
  std::vector<std::set<size_t>> made(out.stages.size());
  for (const Parameter& p : model.parameters().unique()) {
    if (p.frozen) continue;
    for (const std::string& use : p.uses)
      if (p.role != Role::kScale) made[stage_of(use, layers)].insert(out.gradients.size());
    out.gradients.push_back({.rows = {p.numel(), models::cut_into_blocks(p.shape), p.role == Role::kScale},
                             .f32 = !is_matrix(p.role),
                             .table = looked_up(p.name)});
  }
  for (size_t s = 0; s < made.size(); ++s) out.stages[s].makes.assign(made[s].rbegin(), made[s].rend());
  return out;
}

}  // namespace retort::plan
