// The table of stage kinds, in the order of documentation.
#include "artifacts/export_model.h"
#include "quantize/quantize_map.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {

const Registry<StageKind>& stage_kinds() {
  static const Registry<StageKind> table(
      "stage kind", {tokenizer_stage(), prepare_stage(), train_stage(), capture_stage(), answers_stage(),
                     quantize_stage(), export_stage(), evaluate_stage(), generate_stage(), report_stage()});
  return table;
}

SectionKind model_section() {
  SectionKind kind = section_kind<ModelOptions>("model", "the model: a new one, or one to start from");
  kind.instead = "from";
  return kind;
}
SectionKind data_section() {
  return section_kind<DataOptions>("data", "what is trained and evaluated on, and the shape of a batch");
}
SectionKind quantize_section() {
  return section_kind<QuantizeSection>("quantize", "the grids that weights live on");
}
SectionKind parallel_section() {
  return section_kind<ParallelOptions>("parallel", "how many ranks share the work");
}
SectionKind export_section() { return section_kind<artifacts::ExportOptions>("export", "the file to write"); }

Input model_input(const Stage& stage) {
  return {"model.from", stage.get<ModelOptions>().from, Thing::kModel};
}

std::vector<Input> training_inputs(const Stage& stage) {
  const auto& data = stage.get<DataOptions>();
  std::vector<Input> inputs;
  for (const SourceOptions& source : data.sources())
    inputs.push_back(
        {data.mixture.empty() ? "data.train" : "data.mixture", source.train, Thing::kShards, "train"});
  return inputs;
}

Input validation_input(const Stage& stage) {
  return {"data.validation", stage.get<DataOptions>().validation, Thing::kShards, "validation"};
}

std::vector<std::string> model_figures(std::vector<std::string> more) {
  std::vector<std::string> figures = {"bits_per_byte", "perplexity", "nats",   "tokens_scored",
                                      "bytes_scored",  "window",     "stored", "expanded",
                                      "file_bytes",    "tokens",     "seconds"};
  figures.insert(figures.end(), more.begin(), more.end());
  return figures;
}

}  // namespace retort::recipes
