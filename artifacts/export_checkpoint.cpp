// A checkpoint of retort without a run: values in DIRECTORY/checkpoints/step_00000000, sharing and adapters
// kept. It holds what no other software has a form for, a byte-patch model or a grid of ours.
#include "artifacts/export_formats.h"
#include "artifacts/model_facts.h"
#include "core/error.h"
#include "train/checkpoint.h"

namespace retort::artifacts {
namespace {

constexpr std::string_view kCommand = "# retort ";  // begins such a checkpoint's recipe

// It takes the place of an older one of its kind only: rotation would remove a run's.
void check_place(const Path& out, const Path& source) {
  const Path checkpoints = out / "checkpoints";
  for (const Path& path : train::list_checkpoints(checkpoints)) {
    std::error_code no_path;  // preset:NAME is no file
    check<IoError>(!std::filesystem::equivalent(path, source, no_path),
                   "{}: is the model that is read; name another directory", path.string());
    const Path recipe = path / "recipe.yaml";
    check<IoError>(std::filesystem::exists(recipe) && read_text(recipe).starts_with(kCommand),
                   "{}: holds a run's checkpoints, which are not replaced; name another directory",
                   checkpoints.string());
  }
}

void write(const ExportSource& source, const ExportOptions&, const Path& out, FileSystem& files) {
  train::CheckpointContent content;
  ModelFacts facts{source.model.spec()};
  facts.generation = source.generation;
  facts.origin = source.origin;
  if (source.tokenizer) {
    facts.tokenizer = source.tokenizer->name();
    content.tokenizer = data::tokenizer_files(*source.tokenizer);
  }
  content.extra = model_facts(facts);
  content.recipe = fmt::format("{}{}\n", kCommand, source.command);
  for (const models::Parameter& p : source.model.parameters().unique())
    if (p.role != models::Role::kScale) content.weights.emplace_back(p.name, source.map.apply(p, p.master));
  train::save_checkpoint(files, out / "checkpoints", content, 1);
}

}  // namespace

ExportFormat checkpoint_export() {
  return {.name = "checkpoint",
          .noun = "a checkpoint",
          .holds = "values as retort itself keeps them",
          .types = {"f32"},
          .merges = false,
          .check_place = check_place,
          .write = write};
}

}  // namespace retort::artifacts
