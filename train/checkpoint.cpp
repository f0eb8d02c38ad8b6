#include "train/checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"
#include "train/objective.h"
#include "train/owners.h"

namespace retort::train {
namespace {

using formats::Json;

constexpr const char* kFormat = "retort-checkpoint";
constexpr int64_t kVersion = 1;
constexpr const char* kWeights = "weights.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kRecipe = "recipe.yaml";
constexpr const char* kTokenizer[] = {"tokenizer.json", "tokenizer_config.json"};
constexpr const char* kManifest = "manifest.json";
constexpr const char* kLatest = "LATEST";
constexpr uint64_t kManifestLimit = uint64_t{1} << 28;

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

// ---- Saving

// Appends to one file and remembers what the manifest says about it.
class FileEntry {
 public:
  FileEntry(FileSystem& files, const Path& path, uint64_t bytes)
      : file_(files.create(path, bytes)), name_(path.filename().string()) {}

  void append(std::span<const std::byte> bytes) {
    file_->append(bytes);
    digest_.add(bytes);
    bytes_ += bytes.size();
  }

  // Block by block, so that no more of a device's tensor is on the host at once.
  void append_tensor(const std::string& name, const at::Tensor& tensor) {
    const uint64_t begin = bytes_;
    const at::Tensor rows = tensor.dim() == 0 ? tensor.detach().view({1}) : tensor.detach();
    Digest digest;
    const models::RowBlocks blocks = models::cut_into_blocks(rows.sizes());
    for (int64_t b = 0; b < blocks.count(); ++b) {
      const at::Tensor host = rows.slice(0, blocks[b].begin, blocks[b].end).cpu().contiguous();
      append(host_bytes(host));
      digest.add(host_bytes(host));
    }
    tensors_.push_back({{"name", name},
                        {"dtype", toString(tensor.scalar_type())},
                        {"shape", tensor.sizes().vec()},
                        {"begin", begin},
                        {"end", bytes_},
                        {"xxh3", hex(digest.value())}});
  }

  Json finish() {
    file_->sync();
    file_->close();
    return {{"name", name_}, {"bytes", bytes_}, {"xxh3", hex(digest_.value())}, {"tensors", tensors_}};
  }

 private:
  std::unique_ptr<WritableFile> file_;
  std::string name_;
  Digest digest_;
  uint64_t bytes_ = 0;
  Json tensors_ = Json::array();
};

// One file before it exists: its first bytes, and the tensors that follow.
struct FilePlan {
  std::string name;
  std::string text;
  const formats::NamedTensors* tensors;
  uint64_t bytes() const {
    uint64_t sum = text.size();
    for (const auto& [_, tensor] : *tensors) sum += tensor.nbytes();
    return sum;
  }
};

std::string render_manifest(const Json& manifest) {
  const auto text = [](const Json& json) {  // a source's path may be no UTF-8
    return json.dump(1, ' ', false, Json::error_handler_t::replace);
  };
  return text({{"manifest", manifest}, {"xxh3", hex(xxh3(text(manifest)))}}) + "\n";
}

void write_text(FileSystem& files, const Path& path, std::string_view text) {
  const auto file = files.create(path, text.size());
  file->append(as_bytes(text));
  file->sync();
  file->close();
}

void write_files(FileSystem& files, const Path& directory, const CheckpointContent& content) {
  static const formats::NamedTensors kNone;
  const std::map<std::string, std::string> metadata{{"format", "pt"}};
  std::vector<FilePlan> plans{
      {kWeights, formats::safetensors_header(content.weights, metadata), &content.weights},
      {kOptimizer, formats::safetensors_header(content.optimizer, metadata), &content.optimizer},
      {kRecipe, content.recipe, &kNone}};
  for (const char* name : kTokenizer)
    if (const auto file = content.tokenizer.find(name); file != content.tokenizer.end())
      plans.push_back({name, file->second, &kNone});
  uint64_t needed = 0;
  for (const FilePlan& plan : plans) needed += plan.bytes();
  const uint64_t free = files.free_bytes(directory);
  check<IoError>(free / 21 * 20 >= needed,
                 "{}: no space left: a checkpoint takes {} and 5% in reserve, {} are free",
                 directory.string(), format_bytes(needed), format_bytes(free));

  std::vector<std::unique_ptr<FileEntry>> entries;  // all created, so reserved, before a byte is written
  for (const FilePlan& plan : plans)
    entries.push_back(std::make_unique<FileEntry>(files, directory / plan.name, plan.bytes()));
  Json index = Json::array();
  for (size_t i = 0; i < plans.size(); ++i) {
    entries[i]->append(as_bytes(plans[i].text));
    for (const auto& [name, tensor] : *plans[i].tensors)
      entries[i]->append_tensor(name, tensor.is_meta() ? content.fetch(name) : tensor);
    index.push_back(entries[i]->finish());
  }
  const Json manifest{{"format", kFormat},
                      {"version", kVersion},
                      {"step", content.step},
                      {"extra", content.extra},
                      {"files", index}};
  write_text(files, directory / kManifest, render_manifest(manifest));
  files.sync_directory(directory);
}

// ---- Loading

// The manifest's value, after its own digest and layout held.
Json read_manifest(const Path& path) {
  const std::string text = read_text(path, kManifestLimit);
  const Json whole = formats::parse_json(text, path.string());
  check<CheckpointError>(
      whole.is_object() && whole.contains("manifest") && render_manifest(whole["manifest"]) == text,
      "{}: damaged: it does not match its own digest", path.string());
  const Json& manifest = whole["manifest"];
  const std::string source = path.string();
  check<CheckpointError>(formats::json_text(manifest, "format", source) == kFormat,
                         "{}: not a Retort checkpoint", source);
  const int64_t version = formats::json_integer(manifest, "version", source);
  check<CheckpointError>(version == kVersion, "{}: version {} is not {}, the one this program reads", source,
                         version, kVersion);
  return manifest;
}

// Checks size and digest of one file; on a mismatch the message names the tensor that is damaged.
void verify_file(const Path& path, const Json& entry) {
  const std::string source = path.string();
  const auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  const auto expected = static_cast<uint64_t>(formats::json_integer(entry, "bytes", "manifest"));
  check<CheckpointError>(bytes.size() == expected, "{}: must have {} bytes, got {}", source, expected,
                         bytes.size());
  if (hex(xxh3(bytes)) == formats::json_text(entry, "xxh3", "manifest")) return;
  for (const Json& tensor : entry.at("tensors")) {
    const auto begin = static_cast<uint64_t>(formats::json_integer(tensor, "begin", "manifest"));
    const auto end = static_cast<uint64_t>(formats::json_integer(tensor, "end", "manifest"));
    if (begin > end || end > bytes.size()) continue;
    check<CheckpointError>(
        hex(xxh3(bytes.subspan(begin, end - begin))) == formats::json_text(tensor, "xxh3", "manifest"),
        "{}: damaged: {} does not match its digest", source, formats::json_text(tensor, "name", "manifest"));
  }
  fail<CheckpointError>("{}: damaged: it does not match its digest", source);
}

std::map<std::string, at::Tensor> open_tensors(const Path& path) {
  const formats::SafetensorsFile file(path);
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, _] : file.entries()) out.emplace(name, file.tensor(name));
  return out;
}

LoadedCheckpoint load_verified(const Path& path) {
  const Json manifest = read_manifest(path / kManifest);
  std::set<std::string> names;
  int missing = 3;
  for (const Json& entry : manifest.at("files")) {
    const std::string name = formats::json_text(entry, "name", "manifest");
    const bool needed = name == kWeights || name == kOptimizer || name == kRecipe;
    missing -= needed && !names.contains(name) ? 1 : 0;
    check<CheckpointError>(
        needed || std::find(std::begin(kTokenizer), std::end(kTokenizer), name) != std::end(kTokenizer),
        "{}: names a file that does not belong here: {}", (path / kManifest).string(), name);
    verify_file(path / name, entry);
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

void save_checkpoint(FileSystem& files, const Path& directory, const CheckpointContent& content,
                     int64_t keep) {
  const Path path = checkpoint_path(directory, content.step);
  const Path temporary = path.string() + fmt::format(".tmp.{}", ::getpid());
  files.make_directories(directory);
  try {
    files.remove_all(temporary);
    files.make_directories(temporary);
    write_files(files, temporary, content);
    try {
      load_verified(temporary);
    } catch (const Error& error) {
      fail<IoError>("what was written does not read back: {}", error.what());
    }
    // A damaged checkpoint of this step is there when a fallback has trained up to it again.
    if (std::filesystem::exists(path))
      files.rename(path, path.string() + fmt::format(".tmp.old.{}", ::getpid()));
    files.rename(temporary, path);
  } catch (...) {
    try {
      files.remove_all(temporary);
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
  files.sync_directory(directory);
  finish_save(files, directory, content.step, keep, content.best);
  for (const Path& other : list_checkpoints(directory))
    if (*step_of(other.filename().string()) > content.step) files.remove_all(other);
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

std::optional<LoadedCheckpoint> load_latest_checkpoint(const Path& directory, Log& log, comm::Comm& comm) {
  std::string names;
  if (comm.rank() == 0)
    for (const Path& path : list_checkpoints(directory)) names += path.filename().string() + "\n";
  names = comm.broadcast_text(names);
  std::istringstream lines(names);
  for (std::string name; std::getline(lines, name);) {
    std::optional<LoadedCheckpoint> loaded;
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
    const Json extra = read_manifest(all.front() / kManifest).at("extra");
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
void copy_tensors(const Path& source, const std::map<std::string, at::Tensor>& tensors, const char* owner,
                  models::Parameters& parameters) {
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
  const at::NoGradGuard no_grad;
  for (models::Parameter& p : parameters.unique()) {
    if (p.borrowed) continue;
    const at::Tensor& whole = tensors.at(p.name);
    p.master.copy_(p.master.sizes() == at::IntArrayRef(p.shape) ? whole : owned(p, whole));
  }
}

}  // namespace

void copy_weights(const LoadedCheckpoint& checkpoint, models::Parameters& parameters) {
  copy_tensors(checkpoint.path, checkpoint.weights, "model", parameters);
}

void copy_learned(const LoadedCheckpoint& checkpoint, models::Parameters& learned) {
  copy_tensors(checkpoint.path, checkpoint.learned, "objective", learned);
}

}  // namespace retort::train
