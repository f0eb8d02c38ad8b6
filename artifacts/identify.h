// What is at a path, and where: the one place that tells files and directories apart. A file is known by its
// first bytes, and by its name only where the format has no mark of its own (.bin, .safetensors, .json); a
// directory by what it holds, models before data. Only names and first bytes are read. What cannot be looked
// at is not there.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"

namespace retort::artifacts {

enum class Kind {
  kNothing,       // no such path
  kUnknown,       // something, but nothing of these
  kCheckpoint,    // a directory with a manifest.json (train/checkpoint.h)
  kCheckpoints,   // a directory with step_N/, or with such a checkpoints/; the newest whole one counts
  kHfFolder,      // a directory with a config.json (models/hf_folder.h)
  kPeft,          // a directory with an adapter_config.json (models/peft_folder.h)
  kGguf,          // a file, or a directory's model.gguf
  kLlama2c,       // a file
  kRun,           // a directory with a recipe.yaml, or with stages that hold models
  kStage,         // a directory with a result.json, of a stage that makes neither a model nor data
  kShards,        // a directory with a shard-00000.h5 (data/token_shards.h)
  kPrepared,      // a directory with those in train/ or validation/
  kTeacherCache,  // a directory with a block-00000.h5, or with that in cache/
  kSafetensors,   // a file
  kHdf5,          // a file
  kJson,          // a file
  kForeign,       // of other software: known by name, and not read
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
