// The command line: a closed set of verbs and options; behaviour is in the recipe. A new option needs a line
// in tests/launch/command_line.txt, which is the point: ask first whether it belongs into an Options struct.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace retort::launch {

// What the arguments (without the program's name) ask for. Help is a command too: it prints to stdout.
// Throws ConfigError with the usage.
std::function<ExitCode()> parse_command_line(const std::vector<std::string>& arguments);

}  // namespace retort::launch
