// A run as named tensors plus a manifest: atomic, verified, free of ranks.
//
//   checkpoints/step_00000400/   weights.safetensors    masters by parameter name (unique only)
//                                optimizer.safetensors  optimizer state
//                                recipe.yaml            the resolved recipe
//                                manifest.json          written last: format, version, step, seed, data position,
//                                                       and per file its bytes, XXH3-64, and per tensor
//                                                       dtype, shape, byte range and XXH3-64
//   checkpoints/LATEST           the directory's name
//
// Saving: space is checked and reserved, files go into step_N.tmp.<pid>/, each fsynced, then the manifest, then
// the directory is renamed and its parent fsynced, then LATEST, then older ones are removed (never the last
// verified). A failure leaves the previous checkpoint whole and throws IoError; the caller may go on training.
// Loading: from newest to oldest until manifest, sizes and digests hold, warning of each that does not.
// Called on rank 0 for saving; every rank reads. Throws CheckpointError, IoError.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "formats/json.h"
#include "formats/safetensors.h"

namespace retort::train {

struct CheckpointContent {
  int64_t step = 0;       // updates done; also the data position, with the batch shape in the recipe
  formats::Json extra;    // tokens seen, skip journal, model spec, tokenizer: small facts by name
  std::string recipe;     // resolved YAML
  formats::NamedTensors weights, optimizer;
};

// Writes directory/step_N, updates LATEST and keeps the newest `keep` checkpoints.
void save_checkpoint(FileSystem& files, const Path& directory, const CheckpointContent& content, int64_t keep);

struct LoadedCheckpoint {
  Path path;
  int64_t step = 0;
  formats::Json extra;
  std::string recipe;
  std::map<std::string, at::Tensor> weights, optimizer;  // views of mappings: copy out of them
};

// One checkpoint directory, verified whole; CheckpointError names what does not hold.
LoadedCheckpoint load_checkpoint(const Path& path);
// The newest that verifies below `directory`, or nothing when there is none at all. All damaged: CheckpointError.
std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log);
// Names of the checkpoints below `directory`, newest first, without reading them.
std::vector<Path> list_checkpoints(const Path& directory);

}  // namespace retort::train
