// Files of text to token shards: OUT/train and OUT/validation.
#include "data/prepare.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode data_verb(const DataArguments& arguments) {
  Log log;
  data::prepare(arguments.prepare, arguments.out, /*window=*/2, local_files(), log);
  return ExitCode::kDone;
}

}  // namespace retort::launch
