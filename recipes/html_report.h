// Runs side by side as one HTML page that needs no network and no script: results of their stages, curves of
// training and validation, what they wrote (samples, tables of tasks), and the keys in which their recipes differ.
// Reads the runs' directories; any thread. Throws DataError, IoError naming the file.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"

namespace retort::recipes {

// A run is a directory that `retort run` has made; ConfigError for another one.
std::string html_report(const std::vector<Path>& runs);

}  // namespace retort::recipes
