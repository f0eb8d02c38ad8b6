#include "launch/export_model.h"
#include "launch/out_path.h"
#include "launch/verbs.h"
#include "recipes/validate.h"

namespace retort::launch {

ExitCode export_verb(const ExportArguments& arguments) {
  Log log;
  const OpenedModel model = open_model(arguments.model, "", 0, log);
  recipes::ExportOptions options;
  options.format = arguments.format;
  options.type = arguments.type;
  options.embedding_type = arguments.embedding_type;
  options.activations = arguments.activations;
  check<ConfigError>(options.type != "own" || options.embedding_type == "same",
                     "--embedding-type needs a --type; without one the model's own grids are written");
  probe_out("--out", arguments.out, options.format == "gguf", model.source);
  const std::string misfit = recipes::export_misfit(options, model.decoder->parameters());
  check<ConfigError>(misfit.empty(), "--type: {}", misfit);
  const uint64_t bytes = export_model(model, options, arguments.out, local_files());
  log.info("{}: {}", arguments.out, format_bytes(bytes));
  return ExitCode::kDone;
}

}  // namespace retort::launch
