// devices: what this machine has to compute with.
#include <fmt/format.h>

#include "launch/verbs.h"
#include "recipes/machine.h"

namespace retort::launch {

ExitCode devices_verb() {
  fmt::print("{}", recipes::describe_machine());
  return ExitCode::kDone;
}

}  // namespace retort::launch
