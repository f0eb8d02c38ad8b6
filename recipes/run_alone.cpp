#include "recipes/run_alone.h"

#include <ATen/Parallel.h>

#include "recipes/stage_context.h"
#include "recipes/validate.h"

namespace retort::recipes {
namespace {

void raise_findings(const std::vector<Finding>& findings, const AloneOptions& options) {
  std::vector<std::string> lines;
  for (const Finding& finding : findings)
    lines.push_back(fmt::format("{}: {}", options.name_of(finding.keys.front()), finding.text));
  check<ConfigError>(lines.empty(), "{}", fmt::join(lines, "\n"));
}

}  // namespace

formats::Json run_alone(const Stage& stage, const AloneOptions& options, FileSystem& files, Log& log) {
  const Recipe recipe{options.run, {}, {stage}};
  raise_findings(validate(recipe, 0, /*alone=*/true), options);
  const std::atomic<bool> stop{false};
  const auto comm = comm::make_self_comm();
  if (options.run.threads > 0) at::set_num_threads(static_cast<int>(options.run.threads));
  kernels::choose_products();  // the same as in a run
  StageContext context{.recipe = recipe,
                       .stage = recipe.stages.front(),
                       .run = {},
                       .directory = options.directory,
                       .identity = {},
                       .comm = *comm,
                       .threads = at::get_num_threads(),
                       .tuning = kernels::tune_cpu,
                       .files = files,
                       .log = log,
                       .stop = stop,
                       .print = options.print,
                       .outs = options.outs};
  return kind_of(stage).run(context).result;
}

}  // namespace retort::recipes
