#include "launch/score.h"

#include "models/family.h"

namespace retort::launch {
namespace {

bool all_f32(const models::Parameters& parameters) {
  for (const models::Parameter& p : parameters.unique())
    if (p.working.scalar_type() != at::kFloat) return false;
  return true;
}

void take_values(models::Model& to, const models::Model& from, models::WeightMap& map) {
  const at::NoGradGuard no_grad;
  for (models::Parameter& p : to.parameters().unique()) {  // `from` may have scales and others beside these
    const models::Parameter& own = from.parameters().at(p.name);
    p.master.copy_(map.apply(own, own.master));
    p.input_map = own.input_map;
  }
  models::IdentityMap identity;
  models::bind_working(to.parameters(), identity, at::kFloat);
}

}  // namespace

std::unique_ptr<models::Model> f32_copy(const models::Model& model, models::WeightMap& map) {
  auto copy = models::make_model(model.spec());
  take_values(*copy, model, map);
  return copy;
}

std::unique_ptr<models::Decoder> f32_copy(const models::Decoder& model, models::WeightMap& map) {
  auto copy = std::make_unique<models::Decoder>(model.spec());
  take_values(*copy, model, map);
  return copy;
}

eval::TextScore score_f32(models::Model& model, models::WeightMap& map, const data::TokenShards& text,
                          int64_t sequence, comm::Comm& comm, int64_t limit) {
  const at::NoGradGuard no_grad;
  if (all_f32(model.parameters())) return eval::score_text(model, text, sequence, comm, limit);
  return eval::score_text(*f32_copy(model, map), text, sequence, comm, limit);
}

formats::Json score_json(const eval::TextScore& score, int64_t sequence) {
  return {{"bits_per_byte", score.bits_per_byte()}, {"perplexity", score.perplexity()}, {"nats", score.nats},
          {"tokens_scored", score.tokens},          {"bytes_scored", score.bytes},      {"window", sequence}};
}

}  // namespace retort::launch
