#include "recipes/run_claim.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>

#include "comm/together.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/nearest.h"
#include "core/table.h"
#include "recipes/stage_context.h"
#include "recipes/stage_directory.h"

namespace retort::recipes {
namespace {

using formats::Json;

Path seed_directory(const Recipe& recipe, int64_t seed) {
  return Path(recipe.run.dir) / fmt::format("seed-{}", seed);
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  if (values.size() < 2) return 0.0;
  const double mean = mean_of(values);
  double sum = 0.0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

bool obeys(const BarOptions& bar, double v) {
  if (!std::isfinite(v)) return false;
  if (bar.is == "at_least") return v >= bar.value;
  return (bar.is == "within" ? std::abs(v) : v) <= bar.value;
}

// The seeds with which a stage came to no figures: it was left out, or one of those that the claim is about
// was not finite, which a result holds as null.
std::vector<int64_t> failed_seeds(const Recipe& recipe, const std::string& stage) {
  const ClaimOptions& claim = *recipe.claim;
  std::vector<std::string> figures = claim.figures;
  for (const BarOptions& bar : claim.bars) figures.push_back(bar.figure);
  std::vector<int64_t> out;
  for (const int64_t seed : claim.seeds) {
    const auto result = read_result(seed_directory(recipe, seed), stage);
    const auto is_null = [&](const std::string& figure) {
      return result->contains(figure) && result->at(figure).is_null();
    };
    if (!result || std::any_of(figures.begin(), figures.end(), is_null)) out.push_back(seed);
  }
  return out;
}

using FailedArms = std::map<std::string, std::vector<int64_t>>;

std::vector<std::string> arms_of(const BarOptions& bar) {
  std::vector<std::string> arms = {bar.arm, bar.against};
  if (bar.of == "recovery") arms.push_back(bar.reference);
  return arms;
}

FailedArms failed_arms(const Recipe& recipe) {
  FailedArms out;
  for (const Stage& stage : recipe.stages)
    if (std::vector<int64_t> seeds = failed_seeds(recipe, stage.name); !seeds.empty())
      out[stage.name] = std::move(seeds);
  return out;
}

bool has_figure(const Path& run, const std::string& stage, const std::string& figure) {
  const Json result = read_result(run, stage).value_or(Json::object());
  return result.contains(figure) && result.at(figure).is_number();
}

// One figure of one stage of one seed.
double figure_of(const Path& run, const std::string& stage, const std::string& figure) {
  const Json result = read_result(run, stage).value_or(Json::object());
  std::vector<std::string> known;
  for (const auto& [key, value] : result.items())
    if (value.is_number()) known.push_back(key);
  check<DataError>(std::find(known.begin(), known.end(), figure) != known.end(),
                   "claim: {} has no figure \"{}\"{} (it has {})", (run / stage / "result.json").string(),
                   figure, did_you_mean(figure, known), fmt::join(known, ", "));
  return result.at(figure).get<double>();
}

// The rows of the table: without those that failed with any seed, since figures are of all seeds.
std::vector<std::string> arms_of(const Recipe& recipe, const FailedArms& failed) {
  const ClaimOptions& claim = *recipe.claim;
  std::vector<std::string> arms = claim.arms;
  std::erase_if(arms, [&](const std::string& arm) { return failed.contains(arm); });
  if (!claim.arms.empty()) return arms;
  for (const Stage& stage : recipe.stages) {
    if (failed.contains(stage.name)) continue;
    const auto result = read_result(seed_directory(recipe, claim.seeds.front()), stage.name);
    if (result->contains(claim.figures.front())) arms.push_back(stage.name);
  }
  return arms;
}

ArmFigures gather(const Recipe& recipe, const FailedArms& failed) {
  const ClaimOptions& claim = *recipe.claim;
  ArmFigures out;
  const auto take = [&](const std::string& arm, const std::string& figure) {
    std::vector<double>& values = out[arm][figure];
    if (!values.empty()) return;
    for (const int64_t seed : claim.seeds)
      values.push_back(figure_of(seed_directory(recipe, seed), arm, figure));
  };
  // A column may be of some arms only: a rounded model's divergence, a file's size.
  const std::vector<std::string> arms = arms_of(recipe, failed);
  check<DataError>(!arms.empty() || !failed.empty(),
                   "claim: no stage has the figure \"{}\", the table's first", claim.figures.front());
  const Path first = seed_directory(recipe, claim.seeds.front());
  for (const std::string& arm : arms) out[arm];
  for (const std::string& figure : claim.figures) {
    const auto has = [&](const std::string& arm) { return has_figure(first, arm, figure); };
    if (failed.empty() && std::none_of(arms.begin(), arms.end(), has))
      take(arms.front(), figure);  // says what there is
    for (const std::string& arm : arms)
      if (has(arm)) take(arm, figure);
  }
  for (const BarOptions& bar : claim.bars)
    for (const std::string& arm : arms_of(bar))
      if (!failed.contains(arm)) take(arm, bar.figure);
  return out;
}

std::string number(double v) {
  return std::abs(v) >= 10000 && v == std::floor(v) ? grouped(static_cast<int64_t>(v))
                                                    : fmt::format("{:.4g}", v);
}
// Bits and nats need four decimals beside each other.
std::string spread(const std::vector<double>& values) {
  if (values.empty()) return "-";
  const double mean = mean_of(values), deviation = deviation_of(values);
  if (std::abs(mean) >= 1000) return number(mean);
  return deviation == 0.0 ? fmt::format("{:.4f}", mean) : fmt::format("{:.4f} ± {:.4f}", mean, deviation);
}

std::string arm_table(const Recipe& recipe, const ArmFigures& figures, const FailedArms& failed) {
  std::vector<std::vector<std::string>> rows = {{"arm"}};
  for (const std::string& figure : recipe.claim->figures) rows[0].push_back(figure);
  for (const std::string& arm : arms_of(recipe, failed)) {
    rows.push_back({arm});
    for (const std::string& figure : recipe.claim->figures)
      rows.back().push_back(figures.at(arm).contains(figure) ? spread(figures.at(arm).at(figure)) : "-");
  }
  return markdown_table(rows);
}

std::string quantity(const BarOptions& bar) {
  if (bar.of == "recovery")
    return fmt::format("recovery of {} by {} towards {}, {}", bar.against, bar.arm, bar.reference,
                       bar.figure);
  return fmt::format("{} {} {}, {}", bar.arm, bar.of == "ratio" ? "/" : "-", bar.against, bar.figure);
}

Json bar_json(const BarOptions& bar, const Verdict& verdict) {
  return {{"says", bar.says},
          {"quantity", quantity(bar)},
          {"is", bar.is},
          {"value", bar.value},
          {"seeds", verdict.values},
          {"mean", verdict.mean},
          {"deviation", verdict.deviation},
          {"holds", verdict.holds},
          {"seeds_holding", verdict.seeds_holding}};
}

std::string bar_table(const Json& bars) {
  std::vector<std::vector<std::string>> rows = {
      {"bar", "quantity", "must be", "mean ± sd", "seeds", "holds"}};
  for (const Json& bar : bars) {
    const auto values = bar.at("seeds").get<std::vector<double>>();
    rows.push_back({bar.at("says"), bar.at("quantity"),
                    fmt::format("{} {}", bar.at("is").get<std::string>(), number(bar.at("value"))),
                    spread(values),
                    fmt::format("{}/{}", bar.at("seeds_holding").get<int64_t>(), values.size()),
                    bar.at("holds").get<bool>() ? "yes" : "NO"});
  }
  return markdown_table(rows);
}

// No seed holds a bar whose arms are not all there.
Verdict verdict_of(const BarOptions& bar, const ArmFigures& figures, const FailedArms& failed) {
  const std::vector<std::string> arms = arms_of(bar);
  if (std::none_of(arms.begin(), arms.end(), [&](const auto& arm) { return failed.contains(arm); }))
    return judge(bar, figures);
  Verdict none;
  none.mean = none.deviation = std::numeric_limits<double>::quiet_NaN();
  return none;
}

std::string text_of(const FailedArms& failed) {
  std::string text;
  for (const auto& [arm, seeds] : failed)
    text += fmt::format(
        "{} failed with seed {}: its figures are not finite, or it needs a stage that failed. It is in no "
        "table.\n",
        arm, fmt::join(seeds, ", "));
  return text;
}

std::string today() { return fmt::format("{:%Y-%m-%d}", std::chrono::system_clock::now()); }

// Writes and prints.
ExitCode conclude(const Recipe& recipe, const std::string& machine, FileSystem& files) {
  const ClaimOptions& claim = *recipe.claim;
  const FailedArms failed = failed_arms(recipe);
  const ArmFigures figures = gather(recipe, failed);
  Json bars = Json::array();
  bool all = true;
  for (const BarOptions& bar : claim.bars) {
    bars.push_back(bar_json(bar, verdict_of(bar, figures, failed)));
    all = all && bars.back().at("holds").get<bool>();
  }
  const std::string where = fmt::format("{}; {}; seeds {}", machine, today(), fmt::join(claim.seeds, ", "));
  std::string text = fmt::format("{}\n\n{}\n", claim.says, arm_table(recipe, figures, failed));
  if (!claim.bars.empty()) text += bar_table(bars) + "\n";
  text += text_of(failed);
  text += fmt::format("Mean over seeds ± standard deviation of one; bars are paired by seed. {}.\n", where);
  Json report = {{"says", claim.says}, {"seeds", claim.seeds}, {"arms", figures},
                 {"bars", bars},       {"machine", machine},   {"date", today()}};
  if (!failed.empty()) report["failed"] = failed;
  const Path directory = recipe.run.dir;
  write_json(files, directory / "claim.json", report);
  write_durably(files, directory / "claim.md", text);
  fmt::print("{}", text);
  std::fflush(stdout);
  return !failed.empty() ? ExitCode::kNonFinite : all ? ExitCode::kDone : ExitCode::kBarMissed;
}

}  // namespace

Verdict judge(const BarOptions& bar, const ArmFigures& figures) {
  const auto& arm = figures.at(bar.arm).at(bar.figure);
  const auto& against = figures.at(bar.against).at(bar.figure);
  Verdict verdict;
  for (size_t i = 0; i < arm.size(); ++i) {
    double v = arm[i] - against[i];
    if (bar.of == "ratio") v = arm[i] / against[i];
    if (bar.of == "recovery")
      v = (against[i] - arm[i]) / (against[i] - figures.at(bar.reference).at(bar.figure)[i]);
    verdict.values.push_back(v);
    verdict.seeds_holding += obeys(bar, v) ? 1 : 0;
  }
  verdict.mean = mean_of(verdict.values);
  verdict.deviation = deviation_of(verdict.values);
  verdict.holds = obeys(bar, verdict.mean);
  return verdict;
}

namespace {

bool is_shared(const Recipe& recipe, const Stage& stage) {
  const std::vector<std::string>& shared = recipe.claim->shared;
  return std::find(shared.begin(), shared.end(), stage.name) != shared.end();
}

Path shared_directory(const Recipe& recipe) { return Path(recipe.run.dir) / "shared"; }

// The stages that are shared, or those that are not, as a run of its own.
Recipe part_of(const Recipe& recipe, bool shared, int64_t seed, const Path& directory) {
  Recipe part = recipe;
  part.claim.reset();
  part.run.seed = seed;
  part.run.dir = directory;
  std::erase_if(part.stages, [&](const Stage& stage) { return is_shared(recipe, stage) != shared; });
  return part;
}

void link_shared(const Recipe& recipe, const Path& directory, FileSystem& files) {
  files.make_directories(directory);
  for (const std::string& name : recipe.claim->shared) {
    const Path link = directory / name;
    if (std::filesystem::exists(link)) continue;
    try {
      std::filesystem::remove(link);  // one that points nowhere
      std::filesystem::create_directory_symlink(Path("..") / "shared" / name, link);
    } catch (const std::filesystem::filesystem_error& error) {
      fail<IoError>("{}: cannot be made: {}", link.string(), error.what());
    }
  }
}

}  // namespace

ExitCode run_claim(const Recipe& recipe, const PipelineOptions& options, comm::Comm& comm, FileSystem& files,
                   Log& log, const std::atomic<bool>& stop) {
  const std::vector<int64_t>& seeds = recipe.claim->seeds;
  PipelineOptions of_seeds = options;
  of_seeds.past_non_finite = true;  // one arm does not cost the others their table
  if (!recipe.claim->shared.empty()) {
    log.info("claim: what all seeds share");
    const Recipe part = part_of(recipe, true, seeds.front(), shared_directory(recipe));
    const ExitCode code = run_pipeline(part, options, comm, files, log, stop);
    if (code != ExitCode::kDone) return code;
  }
  for (size_t i = 0; i < seeds.size(); ++i) {
    const Path directory = seed_directory(recipe, seeds[i]);
    comm::on_rank_zero(comm, [&] { link_shared(recipe, directory, files); });
    log.info("claim: seed {} ({}/{})", seeds[i], i + 1, seeds.size());
    const Recipe part = part_of(recipe, false, seeds[i], directory);
    const ExitCode code = run_pipeline(part, of_seeds, comm, files, log, stop);
    if (code == ExitCode::kPreempted) return code;
  }
  const std::string machine = fmt::format("{}, {} threads", cpu_features().model, options.threads);
  auto code = ExitCode::kDone;
  comm::on_rank_zero(comm, [&] { code = conclude(recipe, machine, files); });
  return static_cast<ExitCode>(comm.reduce(static_cast<int64_t>(code), comm::Reduce::kMax));
}

}  // namespace retort::recipes
