#include "recipes/stage_context.h"

#include "recipes/data_options.h"
#include "recipes/inputs.h"
#include "recipes/score.h"
#include "train/precision.h"

namespace retort::recipes {

std::shared_ptr<const data::TokenShards> StageContext::shards(const std::string& address,
                                                              const std::string& part) const {
  return open_shards({"data." + part, address, Thing::kShards, part}, run);
}

at::ScalarType StageContext::precision(const std::string& wanted, comm::Comm& group, Log& to) const {
  if (device.is_cpu()) return train::choose_precision(wanted, group, to, tuning);
  if (wanted == "auto") to.info("precision bf16: {} multiplies in it at full speed", device.str());
  return train::dtype_of(wanted == "fp32" ? wanted : "bf16");
}

artifacts::OpenedModel StageContext::open_model(const std::string& address, Log& to) const {
  return recipes::open_model(address, run, seed(), to, strict);
}

artifacts::OpenedStored StageContext::open_stored(const std::string& address, Log& to) const {
  return recipes::open_stored(address, run, seed(), to, strict);
}

Path StageContext::out(const char* file, bool is_file) const {
  if (!outs.empty()) return outs.front();
  if (is_file) files.make_directories(directory);
  return is_file ? directory / file : directory;
}

formats::Json evaluate(const StageContext& context, models::Model& model, models::WeightMap& map,
                       comm::Comm& comm) {
  const auto& data = context.stage.get<DataOptions>();
  if (data.validation.empty()) return formats::Json::object();
  const auto text = context.shards(data.validation, "validation");
  return score_json(score_f32(model, map, *text, data.sequence, comm), data.sequence);
}

formats::Json parameter_counts(const models::Model& model) {
  return {{"stored", model.parameters().stored()}, {"expanded", model.parameters().expanded()}};
}

std::optional<formats::Json> read_result(const Path& run, const std::string& stage) {
  const Path path = run / stage / "result.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return formats::read_json(path);
}

Spent spent_before(const StageContext& context, const std::string& address) {
  const auto stage = stage_of(address);
  const auto result = stage ? read_result(context.run, *stage) : std::nullopt;
  if (!result || !result->contains("tokens")) return {};
  const std::string source = *stage + "/result.json";
  return {formats::json_integer(*result, "tokens", source), formats::json_real(*result, "seconds", source)};
}

}  // namespace retort::recipes
