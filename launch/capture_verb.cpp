// The capture stages of a recipe and what they need, and nothing else of it.
#include "launch/verbs.h"

namespace retort::launch {

ExitCode capture_verb(const CaptureArguments& arguments) {
  return run_verb({.recipe = arguments.recipe, .sets = arguments.sets, .only = "capture"});
}

}  // namespace retort::launch
