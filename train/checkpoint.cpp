#include "train/checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include "comm/together.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"
#include "train/objective.h"
#include "train/owners.h"
#include "train/stored_checkpoint.h"

namespace retort::train {
namespace {

using formats::Json;

constexpr const char* kLatest = "LATEST";

std::string directory_name(int64_t step) { return fmt::format("step_{:08}", step); }

// The step of "step_00000400", or nothing for any other name.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with("step_")) return {};
  int64_t step = 0;
  const auto [end, code] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (code != std::errc() || end != name.data() + name.size() || directory_name(step) != name) return {};
  return step;
}

bool is_temporary(const std::string& name) {
  return (name.starts_with("step_") || name.starts_with(kLatest)) && name.find(".tmp.") != name.npos;
}

std::map<std::string, at::Tensor> open_tensors(const Path& path) {
  const formats::SafetensorsFile file(path);
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, _] : file.entries()) out.emplace(name, file.tensor(name));
  return out;
}

LoadedCheckpoint load_verified(const Path& path) {
  const Json manifest = read_manifest(path);
  const int64_t version = formats::json_integer(manifest, "version", "manifest");
  std::set<std::string> names;
  int missing = 3;
  for (const Json& entry : manifest.at("files")) {
    const std::string name = formats::json_text(entry, "name", "manifest");
    const bool needed = name == kWeights || name == kOptimizer || name == kRecipe;
    missing -= needed && !names.contains(name) ? 1 : 0;
    check<CheckpointError>(
        needed || std::find(std::begin(kTokenizer), std::end(kTokenizer), name) != std::end(kTokenizer),
        "{}: names a file that does not belong here: {}", (path / kManifest).string(), name);
    verify_file(path / name, entry, version);
    names.insert(name);
  }
  check<CheckpointError>(missing == 0, "{}: must list {}, {} and {}, {} of them missing",
                         (path / kManifest).string(), kWeights, kOptimizer, kRecipe, missing);
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    check<CheckpointError>(names.contains(name) || name == kManifest || name.starts_with("."),
                           "{}: holds a file that its manifest does not list: {}", path.string(), name);
  }
  LoadedCheckpoint out{.path = path,
                       .step = formats::json_integer(manifest, "step", "manifest"),
                       .extra = manifest.at("extra"),
                       .recipe = read_text(path / kRecipe),
                       .weights = open_tensors(path / kWeights),
                       .learned = {},
                       .optimizer = open_tensors(path / kOptimizer)};
  for (auto weight = out.weights.begin(); weight != out.weights.end();) {
    const auto next = std::next(weight);
    if (weight->first.starts_with(kLearnedPrefix)) out.learned.insert(out.weights.extract(weight));
    weight = next;
  }
  const auto named = step_of(path.filename().string());
  check<CheckpointError>(!named || *named == out.step, "{}: holds step {}", path.string(), out.step);
  return out;
}

}  // namespace

void save_checkpoint(FileSystem& files, const Path& directory, const CheckpointContent& content, int64_t keep,
                     RangeFiles& ranges) {
  CheckpointWriter writer(files, ranges, directory, content, fmt::format("{}", ::getpid()));
  try {
    writer.reserve();
    writer.commit(writer.write(), keep);
  } catch (const std::exception&) {
    writer.discard();
    throw;
  }
}

void remove_later(FileSystem& files, const Path& directory, int64_t step) {
  for (const Path& other : list_checkpoints(directory))
    if (*step_of(other.filename().string()) > step) files.remove_all(other);
}

void finish_save(FileSystem& files, const Path& directory, int64_t step, int64_t keep, int64_t best) {
  const Path latest = directory / kLatest;
  const std::string name = directory_name(step) + "\n";
  if (!std::filesystem::exists(latest) || read_text(latest) != name) write_durably(files, latest, name);
  std::vector<Path> gone;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (is_temporary(entry.path().filename().string())) gone.push_back(entry.path());
  int64_t kept = 0;
  for (const Path& path : list_checkpoints(directory)) {
    const int64_t of_path = *step_of(path.filename().string());
    if (of_path <= step && ++kept > std::max<int64_t>(keep, 1) && of_path != best) gone.push_back(path);
  }
  for (const Path& path : gone) files.remove_all(path);
}

LoadedCheckpoint load_checkpoint(const Path& path) {
  try {
    return load_verified(path);
  } catch (const CheckpointError&) {
    throw;
  } catch (
      const std::exception& error) {  // a missing file, or JSON of another shape, is a damaged checkpoint
    fail<CheckpointError>("[checkpoint] {}: {}", path.string(), error.what());
  }
}

std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log) {
  return load_latest_checkpoint(directory, log, *comm::make_self_comm());
}

std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log, comm::Comm& comm,
                                                       int64_t until, bool strict) {
  std::string names;
  if (comm.rank() == 0)
    for (const Path& path : list_checkpoints(directory))
      if (const std::string name = path.filename().string(); *step_of(name) <= until) names += name + "\n";
  names = comm.broadcast_text(names);
  std::istringstream lines(names);
  for (std::string name; std::getline(lines, name);) {
    std::optional<LoadedCheckpoint> loaded;
    if (strict) {
      comm::together(comm, [&] { loaded = load_checkpoint(directory / name); });
      return loaded;
    }
    try {
      loaded = load_checkpoint(directory / name);
    } catch (const CheckpointError& error) {
      log.warn("{}; falling back to the checkpoint before", error.what());
    }
    if (comm.all_agree(loaded.has_value())) return loaded;
  }
  check<CheckpointError>(names.empty(), "[checkpoint] {}: every checkpoint is damaged (the warnings say how)",
                         directory.string());
  return {};
}

Path checkpoint_path(const Path& directory, int64_t step) { return directory / directory_name(step); }

void adopt_checkpoint(FileSystem& files, const Path& checkpoint, const Path& directory) {
  const Path place = directory / checkpoint.filename();
  const Path temporary = place.string() + fmt::format(".tmp.{}", ::getpid());
  files.make_directories(temporary);
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
    const auto from = MappedFile::open(entry.path());
    const auto to = files.create(temporary / entry.path().filename(), from->bytes().size());
    to->append(from->bytes());
    to->sync();
    to->close();
  }
  files.sync_directory(temporary);
  files.rename(temporary, place);
  files.sync_directory(directory);
}

Path model_checkpoint(const Path& directory) {
  const std::vector<Path> all = list_checkpoints(directory);
  if (all.empty()) return "";
  try {
    const Json extra = read_manifest(all.front()).at("extra");
    if (!extra.contains("train") || !extra["train"].contains("best")) return all.front();
    const Path best = checkpoint_path(directory, extra["train"]["best"].at("step").get<int64_t>());
    return std::ranges::find(all, best) != all.end() ? best : all.front();
  } catch (const std::exception&) {  // damaged: whoever loads it says so
    return all.front();
  }
}

std::optional<LoadedCheckpoint> load_model_checkpoint(const Path& directory, Log& log) {
  const Path chosen = model_checkpoint(directory);
  if (chosen.empty()) return {};
  if (chosen == list_checkpoints(directory).front()) return load_latest_checkpoint(directory, log);
  try {
    return load_checkpoint(chosen);
  } catch (const CheckpointError& error) {
    log.warn("{}; falling back to the newest checkpoint", error.what());
  }
  return load_latest_checkpoint(directory, log);
}

std::vector<Path> list_checkpoints(const Path& directory) {
  std::vector<Path> out;
  std::error_code code;  // no directory: no checkpoints
  for (const auto& entry : std::filesystem::directory_iterator(directory, code))
    if (step_of(entry.path().filename().string())) out.push_back(entry.path());
  std::sort(out.begin(), out.end(), [](const Path& a, const Path& b) {
    return *step_of(a.filename().string()) > *step_of(b.filename().string());
  });
  return out;
}

formats::NamedTensors weights_of(const models::Parameters& parameters) {
  formats::NamedTensors weights;
  for (const models::Parameter& p : parameters.unique()) {
    if (p.borrowed) continue;
    weights.emplace_back(p.name, p.master);
  }
  return weights;
}

namespace {

// `owner`: whose the parameters are.
void check_tensors(const Path& source, const std::map<std::string, at::Tensor>& tensors, const char* owner,
                   const models::Parameters& parameters) {
  const auto own = std::ranges::count_if(parameters.unique(), [](const auto& p) { return !p.borrowed; });
  check<CheckpointError>(std::ssize(tensors) == own, "{}: holds {} weights, the {} has {}", source.string(),
                         tensors.size(), owner, own);
  for (const models::Parameter& p : parameters.unique()) {
    if (p.borrowed) continue;
    const auto found = tensors.find(p.name);
    check<CheckpointError>(found != tensors.end(), "{}: lacks the weight {}", source.string(), p.name);
    check<CheckpointError>(found->second.sizes() == p.shape && found->second.scalar_type() == at::kFloat,
                           "{}: {} must be f32 {}, got {} {}", source.string(), p.name, format_shape(p.shape),
                           toString(found->second.scalar_type()), format_shape(found->second.sizes()));
  }
}

void copy_tensors(const Path& source, const std::map<std::string, at::Tensor>& tensors, const char* owner,
                  models::Parameters& parameters) {
  check_tensors(source, tensors, owner, parameters);
  const at::NoGradGuard no_grad;
  for (models::Parameter& p : parameters.unique()) {
    if (p.borrowed) continue;
    const at::Tensor& whole = tensors.at(p.name);
    p.master.copy_(p.master.sizes() == at::IntArrayRef(p.shape) ? whole : owned(p, whole));
  }
}

}  // namespace

models::ParameterValues checkpoint_values(const LoadedCheckpoint& checkpoint,
                                          const models::Parameters& parameters,
                                          models::ParameterValues base) {
  check_tensors(checkpoint.path, checkpoint.weights, "model", parameters);
  return [weights = checkpoint.weights, base = std::move(base)](const models::Parameter& p) {
    const auto found = weights.find(p.name);
    return found == weights.end() ? base(p) : found->second;
  };
}

void copy_weights(const LoadedCheckpoint& checkpoint, models::Parameters& parameters) {
  copy_tensors(checkpoint.path, checkpoint.weights, "model", parameters);
}

void copy_learned(const LoadedCheckpoint& checkpoint, models::Parameters& learned) {
  copy_tensors(checkpoint.path, checkpoint.learned, "objective", learned);
}

}  // namespace retort::train
