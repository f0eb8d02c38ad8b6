// A model as a file for other software. Type "own" packs what the model's own map made (a QAT checkpoint's
// codes and scales, bit for bit), f32 where it has none; another type packs the map's f32 values in that
// type.
#pragma once

#include <string>

#include "core/file.h"
#include "launch/model_address.h"
#include "recipes/export_options.h"

namespace retort::launch {

// gguf: a file at `out`. The other formats: a folder at `out`. Returns the bytes written there. An older
// export there is replaced; IoError when something else stands there, or the model that is read.
uint64_t export_model(const OpenedModel& model, const recipes::ExportOptions& options, const Path& out,
                      FileSystem& files);

uint64_t bytes_below(const Path& path);  // of a file, or of all files in a directory

}  // namespace retort::launch
