// data preview: documents of token shards as they are trained.
#include <unistd.h>

#include <cstdio>

#include "data/preview.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode preview_verb(const PreviewArguments& arguments) {
  const Path inner = Path(arguments.shards) / "train";  // what data prepare wrote
  const data::TokenShards shards(std::filesystem::is_directory(inner) ? inner : Path(arguments.shards));
  data::PreviewOptions options = arguments.options;
  options.colour = ::isatty(STDOUT_FILENO) == 1;
  const std::string output = data::preview(shards, options);
  std::fwrite(output.data(), 1, output.size(), stdout);
  return ExitCode::kDone;
}

}  // namespace retort::launch
