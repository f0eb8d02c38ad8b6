#include "recipes/score.h"

#include "artifacts/copy_model.h"
#include "models/on_device.h"

namespace retort::recipes {
namespace {

bool all_f32(const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique())
    if (p.working.scalar_type() != at::kFloat) return false;
  return true;
}

}  // namespace

F32Values::F32Values(models::Model& model, models::WeightMap& map)
    : model_(model), copy_(all_f32(model.parameters()) ? nullptr : artifacts::f32_copy(model, map)) {
  if (copy_) models::move_working_to(copy_->parameters(), models::device_of(model.parameters()));
}

eval::TextScore score_f32(models::Model& model, models::WeightMap& map, const data::TokenShards& text,
                          int64_t sequence, comm::Comm& comm, int64_t limit) {
  const at::NoGradGuard no_grad;
  return eval::score_text(F32Values(model, map).model(), text, sequence, comm, limit);
}

formats::Json score_json(const eval::TextScore& score, int64_t sequence) {
  formats::Json out = {{"perplexity", score.perplexity()},
                       {"nats", score.nats},
                       {"tokens_scored", score.tokens},
                       {"window", sequence}};
  if (score.bytes > 0) out.update({{"bits_per_byte", score.bits_per_byte()}, {"bytes_scored", score.bytes}});
  return out;
}

}  // namespace retort::recipes
