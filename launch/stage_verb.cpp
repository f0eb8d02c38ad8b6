#include "launch/stage_verb.h"

#include "artifacts/out_path.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/run_alone.h"

namespace retort::launch {
namespace {

constexpr int64_t kMostThreads = 1024;

bool print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0;  // a closed pipe ends it
}

}  // namespace

StageVerb::StageVerb(CLI::App& app, const char* kind) : app(app), stage(kind, kind) { run.seed = 0; }

CLI::Option* StageVerb::option(const char* key, const char* name, std::string& value,
                               const std::string& doc) {
  names_[key] = name;
  return app.add_option(name, value, doc);
}

void StageVerb::model() {
  option("model.from", "MODEL", stage.get<recipes::ModelOptions>().from, kModelForms)->required();
}

void StageVerb::sequence() {
  auto& data = stage.get<recipes::DataOptions>();
  data.sequence = 0;
  app.add_option("--sequence", data.sequence,
                 "tokens of a window; the model's context, at most 2048, when left out")
      ->check(whole(1));
}

void StageVerb::seed(const char* doc) {
  run.seed = 0;
  app.add_option("--seed", run.seed, doc)->capture_default_str()->check(whole(0));
}

void StageVerb::threads(const char* doc) {
  app.add_option("--threads", run.threads, doc)->capture_default_str()->check(whole(0, kMostThreads));
}

void StageVerb::directory(const char* doc) { app.add_option("--out", directory_, doc)->required(); }

CLI::Option* StageVerb::outs(const char* doc) {
  return app.add_option("--out", outs_, doc)->take_all()->allow_extra_args(false);
}

void StageVerb::json() { app.add_option("--json", json_, "file to write the figures to as well"); }

void StageVerb::verify() const {
  for (const auto& flags : flags_) flags->verify();
}

ExitCode StageVerb::operator()() const {
  Log log;
  if (!json_.empty()) artifacts::probe_out("--json", json_, true, "");
  recipes::AloneOptions options{.run = run,
                                .directory = directory_,
                                .outs = {outs_.begin(), outs_.end()},
                                .name_of =
                                    [this](const std::string& key) {
                                      const auto found = names_.find(key);
                                      return found != names_.end() ? found->second
                                                                   : FlagSection::flag_of(key);
                                    },
                                .print = print};
  const formats::Json figures = recipes::run_alone(stage, options, local_files(), log);
  if (!json_.empty())
    write_durably(local_files(), json_,
                  figures.dump(1, ' ', false, formats::Json::error_handler_t::replace) + "\n");
  return ExitCode::kDone;
}

}  // namespace retort::launch
