// What a recipe names outside its own keys: stages, presets, files and directories.
#include <algorithm>
#include <filesystem>

#include "artifacts/identify.h"
#include "recipes/validate.h"

namespace retort::recipes {

bool takes(const Stage& stage, const char* section) {
  const auto& sections = stage_kinds().at(stage.kind).sections;
  return std::find(sections.begin(), sections.end(), section) != sections.end();
}

std::vector<Reference> references_of(const Stage& stage) {
  const std::vector<std::string> models = {"train", "quantize", "export"}, shards = {"prepare"};
  std::vector<Reference> out;
  if (takes(stage, "model")) out.push_back({"model.from", stage.model.from, models});
  if (takes(stage, "model") && stage.model.init && stage.model.init->from != "teacher")
    out.push_back({"model.init.from", stage.model.init->from, models});
  const char* train = stage.data.mixture.empty() ? "data.train" : "data.mixture";
  if (reads_training_text(stage))
    for (const SourceOptions& source : stage.data.sources()) out.push_back({train, source.train, shards});
  if (stage.kind == "prepare" && stage_of(stage.prepare.tokenizer))
    out.push_back({"prepare.tokenizer", stage.prepare.tokenizer, {"tokenizer"}});
  if (takes(stage, "data") && stage.kind != "prepare" && stage.kind != "capture")
    out.push_back({"data.validation", stage.data.validation, shards});
  if (!takes(stage, "distill") || !stage.distill) return out;
  const std::string key = stage.distill->teachers.empty() ? "distill.teacher." : "distill.teachers.";
  for (const TeacherOptions& teacher : stage.distill->all_teachers()) {
    out.push_back({key + "model", teacher.model, models});
    for (const std::string& cache : teacher.cache) out.push_back({key + "cache", cache, {"capture"}});
  }
  return out;
}

namespace {

// What is wrong with a file or directory that a recipe names; "" when nothing is.
std::string trouble_with(const std::string& path, const char* missing = "no such file or directory") {
  std::error_code code;
  if (std::filesystem::exists(path, code)) return "";
  return fmt::format("{}: {}", code ? code.message() : missing, path);
}

std::string trouble_with_text(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return fmt::format("must be a file of text, got the directory {}", path);
  return trouble_with(path, "no such file");
}

std::string trouble_with_shards(const std::string& path) {
  if (std::string trouble = trouble_with(path); !trouble.empty() || artifacts::holds_shards(path))
    return trouble;
  for (const char* part : {"train", "validation"})
    if (artifacts::holds_shards(Path(path) / part))
      return fmt::format("{} holds no shards, but its {} does: name {}", path, part,
                         (Path(path) / part).string());
  return fmt::format("must be a directory of token shards (retort data prepare makes one), got {}", path);
}

}  // namespace

std::vector<Finding> missing_files(const Recipe& recipe) {
  std::vector<Finding> out;
  const auto add = [&](const std::string& stage, const std::string& key, std::string trouble) {
    if (!trouble.empty()) out.push_back({stage, {key}, std::move(trouble)});
  };
  std::error_code ignored;
  if (std::filesystem::exists(recipe.run.dir, ignored) &&
      !std::filesystem::is_directory(recipe.run.dir, ignored))
    add("", "run.dir", fmt::format("must be a directory, got the file {}", recipe.run.dir));
  const auto prepares = [](const Stage& stage) {
    return stage.kind == "tokenizer" || (stage.kind == "prepare" && stage.prepare.text.empty());
  };
  if (std::any_of(recipe.stages.begin(), recipe.stages.end(), prepares))
    for (const std::string& path : recipe.run.text) add("", "run.text", trouble_with_text(path));
  for (const Stage& stage : recipe.stages)
    if (stage.kind == "prepare")
      for (const std::string& path : stage.prepare.text)
        add(stage.name, "prepare.text", trouble_with_text(path));
  for (const Stage& stage : recipe.stages)
    for (const Reference& reference : references_of(stage)) {
      const std::string& value = reference.value;
      if (value.empty() || stage_of(value) || preset_of(value)) continue;
      const bool shards = reference.kinds == std::vector<std::string>{"prepare"};
      add(stage.name, reference.key, shards ? trouble_with_shards(value) : trouble_with(value));
    }
  return out;
}

}  // namespace retort::recipes
