#include "recipes/stage_directory.h"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "core/error.h"
#include "recipes/stage_context.h"
#include "recipes/yaml_tree.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAside = ".replaced";
constexpr const char* kBegun = "stage.json";
// What a stage's work is kept for; the logs of one that came to nothing are not.
constexpr const char* kWork[] = {"result.json", "checkpoints", "cache",         "train",
                                 "train.tmp",   "validation",  "validation.tmp"};

std::optional<std::string> hash_in(const Path& path) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    return formats::json_text(formats::read_json(path), "hash", path.string());
  } catch (const DataError&) {
    return std::nullopt;  // damaged: as if it were not there
  }
}

Plan plan_of(const Path& directory, const std::string& hash, bool continues) {
  if (hash_in(directory / "result.json") == hash) return Plan::kSkip;
  const bool finished = fs::exists(directory / "result.json");  // of another recipe, or damaged
  return !finished && continues && hash_in(directory / "stage.json") == hash ? Plan::kContinue : Plan::kFresh;
}

bool is_marked(const Path& directory) {
  return fs::exists(directory / "stage.json") || fs::exists(directory / "result.json");
}

// write_durably()'s NAME.tmp.PID, of a name that a run writes.
bool is_half(const std::string& name) {
  for (const std::string whole :
       {"recipe.yaml", "exit.json", "stage.json", "result.json", "progress.json", "quantization.md"})
    if (name.starts_with(whole + ".tmp.")) return true;
  return false;
}

// Nothing but what a kill has left of a file that was being written.
bool is_blank(const Path& directory) {
  return std::ranges::all_of(fs::directory_iterator(directory), [](const fs::directory_entry& entry) {
    return entry.is_regular_file() && is_half(entry.path().filename().string());
  });
}

bool holds_work(const Path& directory) {
  if (is_blank(directory)) return false;
  return !is_marked(directory) ||  // of a kind that leaves no mark before its result, or not ours
         std::any_of(std::begin(kWork), std::end(kWork),
                     [&](const char* name) { return fs::exists(directory / name); });
}

using Leaves = std::map<std::string, std::string>;

Leaves leaves_of(const std::string& identity) {
  Problems problems;
  return scalars_of(parse_yaml(identity, "stage.json", problems));
}

// The stage's keys whose values are no longer those that the work in its directory was begun with.
std::string changed_keys(const Path& directory, const std::string& identity) {
  const auto begun = begun_work(directory);
  if (!begun) return "";  // a stage that is never continued keeps none
  const Leaves before = leaves_of(begun->identity), now = leaves_of(identity);
  std::vector<std::string> changes;
  for (const auto& [key, value] : now)
    if (const auto old = before.find(key); old == before.end() || old->second != value)
      changes.push_back(fmt::format("{} {} -> {}", key, old == before.end() ? "none" : old->second, value));
  for (const auto& [key, value] : before)
    if (!now.contains(key)) changes.push_back(fmt::format("{} {} -> none", key, value));
  return changes.empty() ? "" : fmt::format(" ({})", fmt::join(changes, ", "));
}

// What was put aside from a stage's place.
std::vector<Path> asides_of(const Path& directory) {
  const std::string first = directory.filename().string() + kAside;
  std::vector<Path> out;
  if (!fs::exists(directory.parent_path())) return out;
  for (const auto& entry : fs::directory_iterator(directory.parent_path())) {
    const std::string name = entry.path().filename().string();
    if (name == first || name.starts_with(first + ".")) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

Path free_aside(const Path& directory) {
  Path aside = directory.string() + kAside;
  for (int n = 2; fs::exists(fs::symlink_status(aside)); ++n)
    aside = fmt::format("{}{}.{}", directory.string(), kAside, n);
  return aside;
}

// Where it is then; "" when nothing in it was worth keeping.
Path move_aside(const Path& directory, FileSystem& files) {
  if (!holds_work(directory)) {
    files.remove_all(directory);
    return {};
  }
  const Path aside = free_aside(directory);
  files.rename(directory, aside);
  return aside;
}

}  // namespace

StageWork find_work(const Path& directory, const std::string& hash, bool continues, bool start_over) {
  if (start_over) return {};
  if (const Plan plan = plan_of(directory, hash, continues); plan != Plan::kFresh) return {plan, directory};
  StageWork found;
  for (const Path& aside : asides_of(directory)) {
    const Plan plan = plan_of(aside, hash, continues);
    if (plan == Plan::kSkip) return {plan, aside};
    if (plan == Plan::kContinue) found = {plan, aside};
  }
  return found;
}

Path put_aside(const Path& directory, const std::string& identity, Aside why, FileSystem& files, Log& log) {
  if (!fs::exists(directory)) return {};
  const bool finished = fs::exists(directory / "result.json");
  const std::string reason = why == Aside::kStartOver ? "--resume never"
                             : is_marked(directory)
                                 ? "its recipe or inputs changed" + changed_keys(directory, identity)
                                 : "was interrupted, and cannot continue";
  const Path aside = move_aside(directory, files);
  if (why == Aside::kLonger)
    log.info("{}: is longer now{}; its shorter work is in {}", directory.string(),
             changed_keys(aside, identity), aside.string());
  else
    log.warn("{}: {}; it is done again, and its {}finished work is {}", directory.string(), reason,
             finished ? "" : "un",
             aside.empty() ? "removed: it had come to no checkpoint" : "in " + aside.string());
  return aside;
}

std::optional<BegunWork> begun_work(const Path& directory) {
  const Path path = directory / kBegun;
  if (!fs::exists(path)) return std::nullopt;
  try {
    const formats::Json json = formats::read_json(path);
    const std::string where = path.string();
    return BegunWork{formats::json_text(json, "hash", where), formats::json_text(json, "recipe", where),
                     json.contains("length") ? formats::json_real(json, "length", where) : 0,
                     json.contains("from") ? formats::json_text(json, "from", where) : "",
                     json.contains("from_length") ? formats::json_real(json, "from_length", where) : 0};
  } catch (const DataError&) {
    return std::nullopt;
  }
}

void write_begun(FileSystem& files, const Path& directory, const BegunWork& work) {
  formats::Json json = {{"hash", work.hash}, {"recipe", work.identity}};
  if (work.length > 0) json["length"] = work.length;
  if (!work.from.empty()) json.update({{"from", work.from}, {"from_length", work.from_length}});
  write_json(files, directory / kBegun, json);
}

void take_back(const StageWork& work, const Path& directory, FileSystem& files, Log& log) {
  if (work.place == directory) return;
  const Path aside = fs::exists(directory) ? move_aside(directory, files) : Path();
  files.rename(work.place, directory);
  log.warn("{}: taken back from {}, where it was put aside{}", directory.string(), work.place.string(),
           aside.empty() ? "" : "; what stood in its place is in " + aside.string());
}

void sweep(const Path& directory, FileSystem& files, const std::vector<std::string>& folders) {
  std::vector<Path> halves;
  const auto is_half_folder = [&](const std::string& name) {
    return std::ranges::any_of(folders,
                               [&](const auto& folder) { return name.starts_with(folder + ".tmp."); });
  };
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() ? is_half(name) : is_half_folder(name)) halves.push_back(entry.path());
  }
  for (const Path& half : halves) files.remove_all(half);
}

void write_json(FileSystem& files, const Path& path, const formats::Json& json) {
  write_durably(files, path, json.dump(1, ' ', false, formats::Json::error_handler_t::replace) + "\n");
}

std::vector<formats::Json> read_json_lines(const Path& path) {
  std::vector<formats::Json> out;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return out;
  std::istringstream lines(read_text(path));
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);)
    out.push_back(formats::parse_json(line, fmt::format("{}:{}", path.string(), ++number)));
  return out;
}

void check_own(const Recipe& recipe) {
  const Path run = recipe.run.dir;
  const bool known = fs::exists(run / ".lock") || fs::exists(run / "exit.json");
  check<ConfigError>(known || !fs::exists(run / "recipe.yaml"),
                     "run.dir {}: holds a recipe.yaml that no run has written; name another directory",
                     run.string());
  for (const Stage& stage : recipe.stages) {
    const Path directory = run / stage.name;
    if (!fs::exists(directory)) continue;
    const bool own =
        fs::is_directory(directory) && (is_blank(directory) || is_marked(directory) ||
                                        (known && !kind_of(stage).continues));  // they leave no mark at first
    check<ConfigError>(own,
                       "{}: is in the place of stage {}, and no stage's work; move it, or name another "
                       "run.dir",
                       directory.string(), stage.name);
  }
}

}  // namespace retort::recipes
