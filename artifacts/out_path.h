// A place that a verb is to write, tried before the work that fills it.
#pragma once

#include "core/file.h"

namespace retort::artifacts {

// `option` names it in errors; `is_file`: a file in a directory that must be there, else a folder, which is
// made with those above it. ConfigError for no name, a directory in a file's place, or `source`, the model's
// file that would be gone; IoError where nothing can be written.
void probe_out(const char* option, const Path& out, bool is_file, const Path& source);

}  // namespace retort::artifacts
