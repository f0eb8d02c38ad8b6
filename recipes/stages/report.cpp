// A table of what earlier stages measured: DIRECTORY/report.md and report.json; and curves.svg, the figure of
// the text over the tokens seen, where some were validated as they trained. Figures are printed as they are. Stages that a
// claim left out are named below the table.
#include <algorithm>

#include "comm/together.h"
#include "core/table.h"
#include "recipes/curves.h"
#include "recipes/stage_context.h"
#include "recipes/stage_directory.h"
#include "recipes/stages/rows.h"

namespace retort::recipes {
namespace {

using formats::Json;

struct ReportOptions {
  std::vector<std::string> stages;
  void describe(Section& s) {
    s.field("stages", stages,
            "stages that are rows of the table; empty: every earlier one that scored a text");
  }
};

// Those that the recipe names, else all earlier ones.
std::vector<Input> inputs(const Recipe& recipe, const Stage& stage) {
  std::vector<Input> out;
  const auto add = [&](const std::string& name) {
    out.push_back({"report.stages", "stage:" + name, Thing::kResult});
  };
  for (const std::string& name : stage.get<ReportOptions>().stages) add(name);
  if (out.empty())
    for (const Stage& other : recipe.stages) {
      if (other.name == stage.name) break;
      add(other.name);
    }
  return out;
}

// `figure`: of the text. One that is not finite is null in a result.
std::vector<std::string> cells(const std::string& name, const char* figure, const Json& r) {
  const auto has = [&](const char* key) { return r.contains(key) && r.at(key).is_number(); };
  const auto count = [&](const char* key) { return has(key) ? grouped(r.at(key).get<int64_t>()) : "-"; };
  const auto real = [&](const char* key, auto format) {
    return has(key) ? format(r.at(key).get<double>()) : "-";
  };
  return {name,
          count("stored"),
          count("expanded"),
          count("file_bytes"),
          real(figure, [](double v) { return fmt::format("{:.4f}", v); }),
          count("tokens"),
          real("seconds", [](double v) { return format_seconds(v); })};
}

// A stage's validations as it trained, which count steps, over the tokens of those steps.
Curve curve_of(const Path& run, const std::string& stage, const char* figure) {
  Curve out{stage, {}};
  double tokens = 0;
  for (const Json& line : read_json_lines(run / stage / "metrics.jsonl")) {
    tokens = line.value("tokens", tokens);
    const auto validation = line.find("validation");
    if (validation == line.end() || !validation->contains(figure) || !validation->at(figure).is_number())
      continue;
    out.points.emplace_back(tokens, validation->at(figure).get<double>());
  }
  return out;
}

// Nothing where no stage was validated twice.
void write_curves(StageContext& context, const Json& report, const char* figure) {
  std::vector<Curve> curves;
  for (const Json& result : report)
    if (Curve curve = curve_of(context.run, result["stage"], figure); !curve.points.empty())
      curves.push_back(std::move(curve));
  const std::string name = figure == std::string_view("bits_per_byte") ? "bits per byte" : figure;
  const std::string svg =
      curves_svg(fmt::format("{}: {} of held-out text", context.recipe.run.name, name), "tokens", curves);
  if (!svg.empty()) write_durably(context.files, context.directory / "curves.svg", svg_file(svg));
}

constexpr const char* kNote =
    "\nstored: parameters that are trained and kept once; expanded: as many as a file without sharing "
    "holds.\n"
    "bits/byte, perplexity: over the whole validation text, of the f32 values of each stage's weights; an "
    "export's are "
    "read\n"
    "back from its file. Tokens and training time include the stages that a model started from.\n";

StageOutcome run(StageContext& context) {
  StageOutcome outcome;
  comm::on_rank_zero(context.comm, [&] {
    Json report = Json::array();
    std::string failed;
    const bool named = !context.stage.get<ReportOptions>().stages.empty();
    for (const std::string& name : stages_before(context.recipe, context.stage)) {
      std::optional<Json> result = read_result(context.run, name);
      if (!result)
        failed += fmt::format(
            "{} has no result: its numbers are not finite, or those of a stage that it needs.\n", name);
      if (!result || (!named && !result->contains("perplexity"))) continue;
      (*result)["stage"] = name;
      report.push_back(*std::move(result));
    }
    // Of a text with a loss mask there are no bits per byte.
    const bool bytes = std::any_of(report.begin(), report.end(),
                                   [](const Json& result) { return result.contains("bits_per_byte"); });
    const char* figure = bytes ? "bits_per_byte" : "perplexity";
    std::vector<std::vector<std::string>> rows = {{"stage", "stored", "expanded", "file bytes",
                                                   bytes ? "bits/byte" : figure, "tokens seen",
                                                   "training time"}};
    for (const Json& result : report) rows.push_back(cells(result["stage"], figure, result));
    context.files.make_directories(context.directory);
    write_curves(context, report, figure);
    write_json(context.files, context.directory / "report.json", report);
    context.print(markdown_table(rows) + kNote + failed);
    outcome.result = {{"rows", rows.size() - 1}};
  });
  return outcome;
}

}  // namespace

StageKind report_stage() {
  return {.name = "report",
          .doc = "a table of what earlier stages measured",
          .sections = {section_kind<ReportOptions>("report", "the table")},
          .figures = {"rows"},
          .product = "report.md",
          .inputs = inputs,
          .run = run};
}

}  // namespace retort::recipes
