#include "recipes/html_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "core/table.h"
#include "formats/json.h"
#include "recipes/curves.h"
#include "recipes/stage_context.h"
#include "recipes/stage_directory.h"
#include "recipes/stage_kind.h"
#include "recipes/yaml_tree.h"

namespace retort::recipes {
namespace {

using formats::Json;

constexpr uint64_t kMostProduct = uint64_t{1} << 18;  // bytes of a file that is shown whole
constexpr const char* kStyle = R"(
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, td.text { text-align: left; }
pre { white-space: pre-wrap; background: #8881; padding: .7rem; }
.wide { overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem; }
)";

// What a run's directory holds, as far as the page shows it.
struct StageRecord {
  std::string name, kind;
  Json result = nullptr;
  std::vector<Json> metrics;
  std::string product;
  std::vector<Json> samples;  // of a training as it went (stages/watch.h)
};
struct RunRecord {
  std::string name;
  std::map<std::string, std::string> keys;
  std::vector<StageRecord> stages;
};

std::string read_product(const Path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return "";
  if (std::filesystem::file_size(path) > kMostProduct)
    return fmt::format("{} bytes: see {}", std::filesystem::file_size(path), path.string());
  return read_text(path);
}

StageRecord read_stage(const Path& run, const std::string& name, const std::string& kind) {
  StageRecord out{.name = name,
                  .kind = kind,
                  .metrics = read_json_lines(run / name / "metrics.jsonl"),
                  .product = {},
                  .samples = read_json_lines(run / name / "samples.jsonl")};
  if (const auto result = read_result(run, name)) out.result = *result;
  if (const StageKind* known = stage_kinds().find(kind); known != nullptr && !known->product.empty())
    out.product = read_product(run / name / known->product);
  return out;
}

RunRecord read_run(const Path& directory) {
  const Path recipe = directory / "recipe.yaml";
  std::error_code ignored;
  check<ConfigError>(std::filesystem::is_regular_file(recipe, ignored),
                     "{}: not the directory of a run: it has no recipe.yaml", directory.string());
  Problems problems;
  const Node tree = parse_yaml(read_text(recipe, kLargestYaml), recipe.string(), problems);
  raise_if_any(problems);
  RunRecord out{.name = directory.lexically_normal().string(), .keys = scalars_of(tree), .stages = {}};
  out.keys.erase("run.dir");
  if (const Node* stages = tree.find("stages"))
    for (const Node& stage : stages->children) {
      const Node *name = stage.find("name"), *kind = stage.find("kind");
      if (name != nullptr && kind != nullptr)
        out.stages.push_back(read_stage(directory, name->scalar, kind->scalar));
    }
  return out;
}

// Cells are HTML.
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"wide\"><table>\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    out += "<tr>";
    for (const std::string& cell : rows[r]) out += r == 0 ? "<th>" + cell + "</th>" : "<td>" + cell + "</td>";
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string shown_figure(const std::string& name, const Json& value) {
  if (!value.is_number()) return "-";
  if (name == "seconds" || name.ends_with("_seconds")) return fmt::format("{:.0f} s", value.get<double>());
  if (value.is_number_integer()) return grouped(value.get<int64_t>());
  return fmt::format("{:.5g}", value.get<double>());
}

// A stage a row, a figure a column; those first by which models are compared.
std::string results(const std::vector<RunRecord>& runs) {
  std::vector<std::string> columns = {"bits_per_byte", "perplexity", "final_loss", "stored",
                                      "file_bytes",    "tokens",     "seconds"};
  std::set<std::string> seen, known(columns.begin(), columns.end());
  for (const RunRecord& run : runs)
    for (const StageRecord& stage : run.stages)
      for (const auto& [name, value] : stage.result.items()) {
        if (!value.is_number()) continue;
        if (known.insert(name).second) columns.push_back(name);
        seen.insert(name);
      }
  std::erase_if(columns, [&](const std::string& name) { return !seen.contains(name); });
  std::vector<std::vector<std::string>> rows{{"run", "stage", "kind"}};
  for (const std::string& name : columns) rows[0].push_back(escaped(name));
  for (const RunRecord& run : runs)
    for (const StageRecord& stage : run.stages) {
      if (std::ranges::none_of(columns, [&](const auto& name) { return stage.result.contains(name); }))
        continue;
      rows.push_back({escaped(run.name), escaped(stage.name), escaped(stage.kind)});
      for (const std::string& name : columns)
        rows.back().push_back(stage.result.contains(name) ? shown_figure(name, stage.result[name]) : "-");
    }
  return "<h2>Results</h2>\n" + table(rows);
}

// Figure `name` of a stage's lines, or of its validations.
Curve curve_of(const std::string& run, const StageRecord& stage, const std::string& name, bool validation) {
  Curve out{run, {}};
  for (const Json& line : stage.metrics) {
    const Json& from = validation ? line.value("validation", Json::object()) : line;
    if (from.contains(name) && from[name].is_number())
      out.points.emplace_back(line.at("step").get<double>(), from[name].get<double>());
  }
  return out;
}

std::string curves(const std::vector<RunRecord>& runs) {
  std::vector<std::string> stages;
  std::map<std::string, std::set<std::string>> validated;
  for (const RunRecord& run : runs)
    for (const StageRecord& stage : run.stages) {
      if (!stage.metrics.empty() && std::ranges::find(stages, stage.name) == stages.end())
        stages.push_back(stage.name);
      for (const Json& line : stage.metrics)
        if (line.contains("validation"))
          for (const auto& [name, value] : line["validation"].items()) validated[stage.name].insert(name);
    }
  std::string out;
  const auto chart = [&](const std::string& stage, const std::string& figure, bool validation) {
    std::vector<Curve> of_runs;
    for (const RunRecord& run : runs)
      for (const StageRecord& record : run.stages)
        if (record.name == stage) of_runs.push_back(curve_of(run.name, record, figure, validation));
    out +=
        curves_svg(fmt::format("{}: {}{}", stage, validation ? "validation " : "", figure), "step", of_runs);
  };
  for (const std::string& stage : stages) {
    chart(stage, "loss", false);
    for (const std::string& figure : validated[stage]) chart(stage, figure, true);
    for (const char* figure : {"gradient_norm", "lr"}) chart(stage, figure, false);
  }
  return out.empty() ? "" : "<h2>Curves</h2>\n<div class=\"charts\">\n" + out + "</div>\n";
}

// What a model in training made of its prompts, step by step.
std::string samples(const RunRecord& run, const StageRecord& stage) {
  std::vector<std::vector<std::string>> rows{{"step", "prompt", "text"}};
  const std::string where = (Path(run.name) / stage.name / "samples.jsonl").string();
  for (const Json& line : stage.samples)
    rows.push_back({grouped(formats::json_integer(line, "step", where)),
                    escaped(formats::json_text(line, "prompt", where)),
                    escaped(formats::json_text(line, "text", where))});
  return fmt::format("<h3>{}: {} as it was trained</h3>\n{}", escaped(run.name), escaped(stage.name),
                     table(rows));
}

std::string products(const std::vector<RunRecord>& runs) {
  std::string out;
  for (const RunRecord& run : runs)
    for (const StageRecord& stage : run.stages) {
      if (!stage.samples.empty()) out += samples(run, stage);
      if (!stage.product.empty())
        out += fmt::format("<h3>{}: {}</h3>\n<pre>{}</pre>\n", escaped(run.name), escaped(stage.name),
                           escaped(stage.product));
    }
  return out.empty() ? "" : "<h2>Samples and tables</h2>\n" + out;
}

std::string differences(const std::vector<RunRecord>& runs) {
  if (runs.size() < 2) return "";
  std::set<std::string> keys;
  for (const RunRecord& run : runs)
    for (const auto& [key, value] : run.keys) keys.insert(key);
  std::vector<std::vector<std::string>> rows{{"key"}};
  for (const RunRecord& run : runs) rows[0].push_back(escaped(run.name));
  for (const std::string& key : keys) {
    std::set<std::string> values;
    std::vector<std::string> row{escaped(key)};
    for (const RunRecord& run : runs) {
      const auto found = run.keys.find(key);
      row.push_back(found == run.keys.end() ? "-" : escaped(found->second));
      values.insert(row.back());
    }
    if (values.size() > 1) rows.push_back(std::move(row));
  }
  if (rows.size() == 1) return "<h2>Differences</h2>\n<p>The recipes are equal.</p>\n";
  return "<h2>Differences</h2>\n" + table(rows);
}

}  // namespace

std::string html_report(const std::vector<Path>& runs) {
  std::vector<RunRecord> records;
  std::string names;
  for (const Path& run : runs) {
    records.push_back(read_run(run));
    names += (names.empty() ? "" : ", ") + escaped(records.back().name);
  }
  return fmt::format(
             "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" "
             "content=\"width=device-width\">\n<title>{}</title>\n<style>{}{}</style></head>\n<body>\n<h1>{}"
             "</h1>\n",
             names, kStyle, kSvgStyle, names) +
         results(records) + curves(records) + products(records) + differences(records) + "</body></html>\n";
}

}  // namespace retort::recipes
