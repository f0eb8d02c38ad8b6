// Text files to token shards: OUT/train and OUT/validation.
#include "data/prepare.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode data_verb(const DataArguments& arguments) {
  Log log;
  data::PrepareOptions options;
  options.tokenizer = arguments.tokenizer;
  options.text = arguments.files;
  options.validation = arguments.validation;
  data::prepare(options, arguments.out, /*window=*/2, local_files(), log);
  return ExitCode::kDone;
}

}  // namespace retort::launch
