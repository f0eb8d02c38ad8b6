#include "artifacts/export_model.h"
#include "launch/model_address.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode export_verb(const ExportArguments& arguments) {
  Log log;
  const OpenedModel model = open_model(arguments.model, "", 0, log);
  artifacts::ExportOptions options;
  options.format = arguments.format;
  options.type = arguments.type;
  options.embedding_type = arguments.embedding_type;
  options.activations = arguments.activations;
  check<ConfigError>(options.type != "own" || options.embedding_type == "same",
                     "--embedding-type needs a --type; without one the model's own grids are written");
  artifacts::probe_export("--out", options.format, arguments.out, model.source);
  const std::string misfit = artifacts::rows_misfit(options, model.decoder->parameters());
  check<ConfigError>(misfit.empty(), "--type: {}", misfit);
  const uint64_t bytes = export_model(model, options, arguments.out, local_files());
  log.info("{}: {}", arguments.out, format_bytes(bytes));
  return ExitCode::kDone;
}

}  // namespace retort::launch
