// A run as named tensors plus a manifest: atomic, verified, and without ranks or wall-clock facts, so that two
// runs with one seed write identical bytes. docs/formats.md has the files and the manifest's layout.
//
// A save that fails leaves the previous checkpoint whole and throws IoError; the caller may train on. Older
// checkpoints go only after the new one has been read back and verified. Loading tries the newest first and
// warns of each that is damaged. Ranks save together (train/saver.h); every rank reads. Throws CheckpointError, IoError.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/log.h"
#include "models/parameters.h"
#include "train/checkpoint_writer.h"

namespace retort::train {

// The files of a checkpoint, beside its manifest.
constexpr const char* kWeights = "weights.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kRecipe = "recipe.yaml";
constexpr const char* kTokenizer[] = {"tokenizer.json", "tokenizer_config.json"};

// Writes directory/step_N, updates LATEST and keeps the newest `keep` (at least one). Leftovers go with the
// older ones: temporaries of failed saves, and steps beyond N, a future that a fallback gave up.
void save_checkpoint(FileSystem& files, const Path& directory, const CheckpointContent& content, int64_t keep,
                     RangeFiles& ranges = local_ranges());
// Removes those of steps beyond this one: a future that a fallback gave up.
void remove_later(FileSystem& files, const Path& directory, int64_t step);
// The end of a save, for one that was killed before it: LATEST names this step, and of the steps up to it the newest
// `keep` and `best` stay, without temporaries. Later ones, which a fallback has passed over, stay until a save.
void finish_save(FileSystem& files, const Path& directory, int64_t step, int64_t keep, int64_t best = -1);

struct LoadedCheckpoint {
  Path path;
  int64_t step = 0;
  formats::Json extra;
  std::string recipe;
  // By name, as views of mappings: copy out of them. `learned`: what the objective had beside the model.
  std::map<std::string, at::Tensor> weights, learned, optimizer;
};

// One checkpoint directory, all of it verified; CheckpointError names the file or tensor that is damaged.
LoadedCheckpoint load_checkpoint(const Path& path);
// The newest below `directory` that is whole, or nothing when there is none at all. CheckpointError when all
// are damaged.
std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log);
// The same for a group: rank 0 lists the candidates, and all take the newest that is whole on every rank.
// `until`: of those up to this step, or nothing when there is none of them. `strict`: the newest, or the error of it, by
// the ranks' together().
std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log, comm::Comm& comm,
                                                       int64_t until = INT64_MAX, bool strict = false);
// The one whose weights are the run's model: the best that the newest one names, when that is there (train.keep_best),
// else the newest. Without reading their tensors; "" when there is none.
Path model_checkpoint(const Path& directory);
// That one, or the newest other that is whole; nothing when there is none at all.
std::optional<LoadedCheckpoint> load_model_checkpoint(const Path& directory, Log& log);
Path checkpoint_path(const Path& directory, int64_t step);
// Copies a checkpoint of another run into `directory`, whole or not at all.
void adopt_checkpoint(FileSystem& files, const Path& checkpoint, const Path& directory);
// Names of the checkpoints below `directory`, newest first, without reading them.
std::vector<Path> list_checkpoints(const Path& directory);
// The masters by name, for a checkpoint, without what is borrowed.
formats::NamedTensors weights_of(const models::Parameters& parameters);
// Copies the model's weights, or the objective's, into the masters. CheckpointError, and
// nothing is copied, unless names and shapes are the same. What is borrowed stays as it is.
void copy_weights(const LoadedCheckpoint& checkpoint, models::Parameters& parameters);
void copy_learned(const LoadedCheckpoint& checkpoint, models::Parameters& learned);

}  // namespace retort::train
