// A table of what earlier stages measured: DIRECTORY/report.md and report.json. Figures are printed as they
// are.
#include <algorithm>

#include "launch/stage_directory.h"
#include "launch/stages.h"
#include "launch/table.h"
#include "launch/together.h"

namespace retort::launch {
namespace {

using formats::Json;

std::vector<std::string> cells(const std::string& name, const Json& r) {
  const auto count = [&](const char* key) {
    return r.contains(key) ? grouped(r.at(key).get<int64_t>()) : "-";
  };
  const auto real = [&](const char* key, auto format) {
    return r.contains(key) ? format(r.at(key).get<double>()) : "-";
  };
  return {name,
          count("stored"),
          count("expanded"),
          count("file_bytes"),
          real("bits_per_byte", [](double v) { return fmt::format("{:.4f}", v); }),
          count("tokens"),
          real("seconds", [](double v) { return format_seconds(v); })};
}

// Rows that the recipe names, else every earlier stage with a figure.
std::vector<std::string> rows_of(const StageContext& context) {
  if (!context.stage.report.stages.empty()) return context.stage.report.stages;
  std::vector<std::string> names;
  for (const recipes::Stage& stage : context.recipe.stages) {
    if (stage.name == context.stage.name) break;
    const auto result = read_result(context.run, stage.name);
    if (result && result->contains("bits_per_byte")) names.push_back(stage.name);
  }
  return names;
}

}  // namespace

StageOutcome report_stage(StageContext& context) {
  StageOutcome outcome;
  on_rank_zero(context.comm, [&] {
    std::vector<std::vector<std::string>> rows = {
        {"stage", "stored", "expanded", "file bytes", "bits/byte", "tokens seen", "training time"}};
    Json report = Json::array();
    for (const std::string& name : rows_of(context)) {
      Json result = read_result(context.run, name).value_or(Json::object());
      rows.push_back(cells(name, result));
      result["stage"] = name;
      report.push_back(std::move(result));
    }
    const std::string note =
        "\nstored: parameters that are trained and kept once; expanded: as many as a file without sharing "
        "holds.\n"
        "bits/byte: over the whole validation text, of the f32 values of each stage's weights; an export's "
        "are read\n"
        "back from its file. Tokens and training time include the stages that a model started from.\n";
    context.files.make_directories(context.directory);
    write_durably(context.files, context.directory / "report.md", markdown_table(rows) + note);
    write_json(context.files, context.directory / "report.json", report);
    outcome.result = {{"rows", rows.size() - 1}};
  });
  return outcome;
}

}  // namespace retort::launch
