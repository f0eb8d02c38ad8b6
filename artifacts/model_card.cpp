#include "artifacts/model_card.h"

#include <algorithm>
#include <cmath>

#include "core/table.h"

namespace retort::artifacts {
namespace {

using formats::Json;

constexpr std::string_view kEnd = "<!-- Written by `retort export`, which replaces this file. -->\n";

// A line of front matter. JSON's quotes are YAML's.
std::string line(const char* key, const std::string& value) {
  return value.empty() ? "" : fmt::format("{}: {}\n", key, Json(value).dump());
}

std::string front_matter(const CardSubject& s) {
  const Origin& origin = s.origin;
  std::string out = "---\n";
  out += line("license", origin.license);
  out += line("license_name", origin.license_name);
  out += line("license_link", origin.license_link);
  out += line("base_model", origin.base_model);
  if (!origin.base_model.empty()) out += line("base_model_relation", s.relation);
  out += line("library_name", s.library);
  out += line("pipeline_tag", "text-generation");
  return out + "---\n\n";
}

// One line of Markdown, whatever a name holds.
std::string plain(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 32 || c == '|'; }, ' ');
  return text;
}

// Paths of a machine are nobody's business.
std::string last_part(const std::string& address) {
  Path path(address);
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = path.filename().string();
  return name.starts_with("stage:") ? name.substr(6) : name;
}

std::string training(const CardSubject& s) {
  const Origin& origin = s.origin;
  const std::string start = !origin.base_model.empty() ? origin.base_model : origin.start;
  const auto tokens = s.training.find("tokens");
  if (tokens == s.training.end()) return start.empty() ? "" : fmt::format("Made from {}.\n\n", plain(start));
  const std::string read =
      grouped(s.facts.tokens.value_or(formats::json_integer(s.training, "tokens", "train")));
  std::string out = fmt::format(
      "## Training\n\nTrained from {}{}{} tokens{}.\n\n", start.empty() ? "random weights" : plain(start),
      s.facts.tokens ? " on " : "; its last stage read ", read, s.facts.tokens ? " in all" : "");
  const auto sources = s.training.find("sources");
  if (sources == s.training.end() || sources->empty()) return out;
  std::vector<std::vector<std::string>> rows = {{"text of the last stage", "passes"}};
  for (const Json& source : *sources)
    rows.push_back({plain(last_part(formats::json_text(source, "name", "train.sources"))),
                    fmt::format("{:.3g}", formats::json_real(source, "epochs", "train.sources"))});
  return out + markdown_table(rows) + "\n";
}

std::string figures(const CardFacts& facts) {
  if (facts.figures.empty()) return "";
  std::vector<std::vector<std::string>> rows = {{"figure", "value", "standard error"}};
  for (const CardFigure& one : facts.figures)
    rows.push_back({plain(one.name), fmt::format("{:.4f}", one.value),
                    std::isfinite(one.error) ? fmt::format("{:.4f}", one.error) : "-"});
  return "## Evaluation\n\nMeasured by Retort on the model's values in f32, before they were rounded to this "
         "file's type.\n\n" +
         markdown_table(rows) + "\n";
}

}  // namespace

std::string model_card(const CardSubject& s) {
  const std::string name = s.facts.name.empty() ? "A model" : plain(s.facts.name);
  return front_matter(s) +
         fmt::format(
             "# {}\n\nA {} model of {} parameters: {} layers of width {}, {} tokens of context{}.\n\n", name,
             s.spec.family, grouped(s.parameters), s.spec.layers, s.spec.width, s.spec.context,
             s.holds.empty() ? "" : ", " + s.holds) +
         training(s) + figures(s.facts) + std::string(kEnd);
}

bool is_model_card(std::string_view text) { return text.ends_with(kEnd); }

}  // namespace retort::artifacts
