// What is at a path, and where: the one place that tells files and directories apart. A file is known by its
// first bytes, and by its name only where the format has no mark of its own (.bin, .safetensors, .json). A
// directory is known by what it holds, models before data:
//
//   manifest.json                  a checkpoint           checkpoints/ or step_N/    checkpoints; the newest
//   config.json                    a Hugging Face folder                             whole one counts
//   model.gguf                     a GGUF                 block-00000.h5 (also in cache/)  a teacher cache
//   shard-00000.h5                 token shards           stages with models, or a recipe.yaml  a run
//   shards in train/, validation/  a prepared text        result.json                a stage without a model
//
// Only names and first bytes are read. Throws nothing: what cannot be looked at is not there.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"

namespace retort::artifacts {

enum class Kind {
  kNothing,      // no such path
  kUnknown,      // something, but nothing of these
  kCheckpoint,   // train/checkpoint.h
  kCheckpoints,  // a directory of those
  kHfFolder,     // models/hf_folder.h
  kGguf,         // a file
  kLlama2c,      // a file
  kRun,          // a directory of stages
  kStage,        // the directory of a stage that made neither a model nor data
  kShards,       // data/token_shards.h
  kPrepared,     // a directory with shards in train/ and validation/
  kTeacherCache,
  kSafetensors,
  kHdf5,
  kJson,
  kForeign,  // of other software: known by name, and not read
};

struct Artifact {
  Kind kind = Kind::kNothing;
  Path path;                 // where it is: the path, or what a stage's directory leads to
  std::vector<Path> models;  // of a run: the directories of its stages that hold one
  std::string trouble;       // why it cannot be opened as a model, to follow its path in a message; or ""
};

Artifact identify(const Path& path);

// The model that a path leads to: itself, or the only one of a run. IoError for no such path, ConfigError
// where a run holds several, DataError with the trouble for everything else.
Artifact find_model(const Path& path);

bool holds_shards(const Path& directory);  // of its own, not of a part
// STAGE.replaced, STAGE.replaced.2, ...: the work of a stage's earlier recipe, which a run no longer counts.
bool is_put_aside(const Path& directory);

}  // namespace retort::artifacts
