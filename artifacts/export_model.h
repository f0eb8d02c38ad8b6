// A model written for other software, or as a checkpoint of its own: the forms are rows of export_formats.h.
// Type "own" packs the codes that the model's own grids make (of a checkpoint trained on a grid: the judged
// weights, bit for bit), f32 where it has none; another type holds the map's f32 values in that type.
#pragma once

#include <string>

#include "artifacts/model_card.h"
#include "artifacts/open_model.h"
#include "core/file.h"
#include "core/section.h"

namespace retort::artifacts {

struct ExportOptions {
  std::string format = "gguf", type = "own", embedding_type = "same";
  bool activations = false, evaluate = false, ollama = false;
  std::string license = {}, base_model = {};  // "": as the model's own files say
  void describe(Section& s);
};

// Tries the place before the work that fills it: as probe_out() (out_path.h), and what the format must not
// replace. `option` names it in errors.
void probe_export(const char* option, const std::string& format, const Path& out, const Path& source);

// A file or a folder at `out`, as the format has it; returns the bytes written there. An older export there
// is replaced; IoError when something else is there, or the model that is read; ConfigError for a misfit
// (export_misfits.h), and for a value beyond the range of its type; NonFiniteError for weights that are not finite.
// `command` is what a checkpoint says that it came from, `card` what a folder's card says besides; its name is that
// of `out` where it has none.
uint64_t export_model(const OpenedModel& model, const ExportOptions& options, const Path& out,
                      FileSystem& files, const std::string& command = "", CardFacts card = {});

uint64_t bytes_below(const Path& path);  // of a file, or of all files in a directory

}  // namespace retort::artifacts
