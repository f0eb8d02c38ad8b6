// A run as named tensors plus a manifest: atomic, verified, free of ranks, and without a wall-clock fact, so
// that two runs with one seed write identical bytes.
//
//   checkpoints/step_00000400/   weights.safetensors    masters by parameter name (unique only)
//                                optimizer.safetensors  optimizer state
//                                recipe.yaml            the resolved recipe
//                                tokenizer.json, tokenizer_config.json  of a tokenizer without its own name
//                                manifest.json          written last
//   checkpoints/LATEST           the directory's name, for people and scripts; loading does not need it
//
// manifest.json, in this order and layout to the byte:
//   {"manifest": {"format": "retort-checkpoint", "version": 1, "step": 400, "extra": {...},
//                 "files": [{"name": "weights.safetensors", "bytes": 1024, "xxh3": "16 hex digits",
//                            "tensors": [{"name", "dtype", "shape", "begin", "end", "xxh3"}, ...]}, ...]},
//    "xxh3": "of the manifest's value, dumped with an indentation of one"}
// begin and end count from the start of the file; recipe.yaml has no tensors.
//
// Saving: space is checked and reserved, files go into step_N.tmp.<pid>/, each fsynced, then the manifest,
// then all is read back and verified, the directory renamed and its parent fsynced, then LATEST. Only then
// older ones go, and what failed or abandoned saves left: stale .tmp directories, and steps beyond N (a
// future that a fallback gave up). A failure leaves the previous checkpoint whole and throws IoError; the
// caller may train on.
//
// Loading: from newest to oldest until manifest, sizes and digests hold, warning of each that does not.
// Called on rank 0 for saving; every rank reads. Throws CheckpointError, IoError.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/file.h"
#include "core/log.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/parameters.h"

namespace retort::train {

struct CheckpointContent {
  int64_t step = 0;     // updates done; also the data position, with the batch shape in the recipe
  formats::Json extra;  // tokens seen, skip journal, model spec, tokenizer: small facts by name
  std::string recipe;   // resolved YAML
  std::map<std::string, std::string> tokenizer = {};  // its files by name (data::tokenizer_files)
  formats::NamedTensors weights, optimizer;
};

// Writes directory/step_N, updates LATEST and keeps the newest `keep` (at least one).
void save_checkpoint(FileSystem& files, const Path& directory, const CheckpointContent& content,
                     int64_t keep);

struct LoadedCheckpoint {
  Path path;
  int64_t step = 0;
  formats::Json extra;
  std::string recipe;
  std::map<std::string, at::Tensor> weights, optimizer;  // views of mappings: copy out of them
};

// One checkpoint directory, verified whole; CheckpointError names the file, or tensor, that does not hold.
LoadedCheckpoint load_checkpoint(const Path& path);
// The newest that verifies below `directory`, or nothing when there is none at all. All damaged:
// CheckpointError.
std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log);
// The same for a group: rank 0 names the candidates, and all take the newest that verifies on every rank.
std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log, comm::Comm& comm);
// Names of the checkpoints below `directory`, newest first, without reading them.
std::vector<Path> list_checkpoints(const Path& directory);
// Copies the weights into the masters; CheckpointError, and nothing copied, unless names and shapes are the
// same. What an objective trained beside the model (models/parameters.h) is left where it is by a model
// alone.
void copy_weights(const LoadedCheckpoint& checkpoint, models::Parameters& parameters);

}  // namespace retort::train
