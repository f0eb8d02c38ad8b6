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

F32Values::F32Values(models::Model& model, models::WeightMap& map, comm::Comm& comm,
                     const train::Owners* owners)
    : model_(model), comm_(comm) {
  const bool divided = owners != nullptr && owners->gathered() != nullptr, f32 = all_f32(model.parameters());
  if (divided) {
    if (!f32) streamed_ = std::make_unique<train::StreamedValues>(model, map, *owners);
    passing_ = std::make_unique<train::PassingComm>(f32 ? *owners->gathered() : streamed_->weights(), comm);
  } else if (!f32) {
    copy_ = artifacts::f32_copy(model, map);
    models::move_working_to(copy_->parameters(), models::device_of(model.parameters()));
  }
}

eval::TextScore score_f32(models::Model& model, models::WeightMap& map, const data::TokenShards& text,
                          int64_t sequence, comm::Comm& comm, int64_t limit, const train::Owners* owners) {
  const at::NoGradGuard no_grad;
  const F32Values values(model, map, comm, owners);
  return eval::score_text(values.model(), text, sequence, values.comm(), limit);
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
