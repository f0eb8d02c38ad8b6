// Runs a recipe in this process, as one of the ranks of its launcher.
#include <ATen/Parallel.h>

#include <thread>

#include "comm/bootstrap.h"
#include "comm/flight.h"
#include "comm/together.h"
#include "launch/signals.h"
#include "launch/verbs.h"
#include "recipes/device.h"
#include "recipes/inputs.h"
#include "recipes/ranks_agree.h"
#include "recipes/read_recipe.h"
#include "recipes/run_claim.h"

namespace retort::launch {
namespace {

// The program as it lies on this machine: two builds may give two sets of bits.
std::string program() {
  return fmt::format("{} (digest {})", RETORT_VERSION, recipes::digest_of_file("/proc/self/exe"));
}

comm::Facts facts_of(const RunArguments& arguments, const recipes::Recipe& recipe) {
  comm::Facts facts = recipes::recipe_facts(recipe);
  facts["retort"] = program();
  facts["--resume"] = arguments.resume;
  facts["--strict"] = arguments.strict ? "given" : "not given";
  facts["the verb"] = arguments.only.empty() ? "run" : arguments.only;
  return facts;
}

ExitCode run_rank(const RunArguments& arguments, comm::Started& started, const std::atomic<bool>& stop) {
  comm::Comm& comm = *started.comm;
  Log log(stderr, "", comm.rank() != 0);
  recipes::Recipe recipe;
  comm::Facts facts;
  comm::together(comm, [&] {
    recipe = recipes::read_recipe(arguments.recipe, arguments.sets, comm.size() > 1 ? comm.size() : 0);
    if (comm.size() > 1) facts = facts_of(arguments, recipe);
  });
  comm::must_agree(comm, facts);
  if (comm.flight()) comm.flight()->write_to(recipe.run.dir);
  const int64_t all = recipe.run.threads > 0 ? recipe.run.threads : std::thread::hardware_concurrency();
  const int64_t local = recipe.run.threads > 0 ? 1 : started.local.size;  // run.threads is of one process
  const bool start_over = arguments.resume == "never", own = start_over || arguments.resume == "auto";
  recipes::PipelineOptions options{.start_over = start_over,
                                   .only = arguments.only,
                                   .resume_from = own ? Path() : Path(arguments.resume),
                                   .strict = arguments.strict,
                                   .threads = std::max<int64_t>(1, all / local)};
  if (const std::string excess = excess_of_threads(options.threads, std::thread::hardware_concurrency());
      !excess.empty())
    log.warn("{}", excess);
  at::set_num_threads(static_cast<int>(options.threads));
  options.tuning = kernels::tune_cpu();
  log.info("retort run {}: {} stage(s) in {}", arguments.recipe, recipe.stages.size(), recipe.run.dir);
  log.info("{}; {}", started.sentence, options.tuning.summary());
  recipes::ChosenDevice chosen;
  comm::together(comm, [&] {
    chosen = recipes::choose_device(recipe.run.device, recipes::most_ranks(recipe, started.local.size),
                                    started.local);
  });
  chosen = recipes::agree_on_device(recipe.run.device, std::move(chosen), comm);
  options.device = chosen.device;
  options.profile = arguments.profile;
  log.info("{}", chosen.sentence);
  check<ConfigError>(!recipe.claim || arguments.only.empty(),
                     "{}: the stages of a claim run together, for every seed; use retort run",
                     arguments.recipe);
  const auto body = recipe.claim ? recipes::run_claim : recipes::run_pipeline;
  return body(recipe, options, comm, local_files(), log, stop);
}

}  // namespace

std::string excess_of_threads(int64_t threads, int64_t processors) {
  if (processors == 0 || threads <= 2 * processors) return "";
  return fmt::format(
      "run.threads {} is more than twice this machine's {} processors: threads wait for each other", threads,
      processors);
}

ExitCode run_verb(const RunArguments& arguments) {
  const StopSignals signals;
  comm::Started started = comm::start_comm(arguments.comm);
  std::optional<comm::SharedError> shared;
  try {
    return run_rank(arguments, started, signals.requested());
  } catch (const comm::SharedError& error) {
    shared = error;  // every rank has it: the group ends in order, then the error goes on
  } catch (...) {
    if (started.comm->size() > 1) {
      const Error error = comm::as_error(std::current_exception());
      started.comm->abort(error.what(), static_cast<int>(error.code()));
    }
    throw;
  }
  started.comm.reset();
  throw *shared;
}

}  // namespace retort::launch
