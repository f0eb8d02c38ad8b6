#include "launch/stages.h"

#include "core/error.h"
#include "launch/score.h"

namespace retort::launch {

const Registry<StageBody>& stage_bodies() {
  static const Registry<StageBody> table("stage kind", {{"tokenizer", false, "", tokenizer_stage},
                                                        {"prepare", true, "", prepare_stage},
                                                        {"train", true, "", train_stage},
                                                        {"capture", true, "", capture_stage},
                                                        {"quantize", false, "", quantize_stage},
                                                        {"export", false, "", export_stage},
                                                        {"generate", false, "sample.txt", generate_stage},
                                                        {"report", false, "report.md", report_stage}});
  return table;
}

std::shared_ptr<const data::TokenShards> open_shards(const StageContext& context,
                                                     const std::string& reference, const std::string& part) {
  const Path path =
      recipes::stage_of(reference) ? Path(resolve_stage(reference, context.run)) / part : Path(reference);
  return std::make_shared<data::TokenShards>(path);
}

formats::Json evaluate(const StageContext& context, models::Model& model, models::WeightMap& map,
                       comm::Comm& comm) {
  const recipes::DataOptions& data = context.stage.data;
  if (data.validation.empty()) return formats::Json::object();
  const auto text = open_shards(context, data.validation, "validation");
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

Spent spent_before(const StageContext& context, const std::string& reference) {
  const auto stage = recipes::stage_of(reference);
  const auto result = stage ? read_result(context.run, *stage) : std::nullopt;
  if (!result || !result->contains("tokens")) return {};
  const std::string source = *stage + "/result.json";
  return {formats::json_integer(*result, "tokens", source), formats::json_real(*result, "seconds", source)};
}

}  // namespace retort::launch
