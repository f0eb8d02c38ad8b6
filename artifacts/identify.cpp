#include "artifacts/identify.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"
#include "formats/file_mark.h"
#include "models/hf_folder.h"
#include "models/peft_folder.h"
#include "train/checkpoint.h"

namespace retort::artifacts {
namespace {

namespace fs = std::filesystem;

bool has(const Path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const Path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::vector<Path> entries_of(const Path& directory) {
  std::error_code ignored;
  std::vector<Path> out;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

// ---- Files

struct Mark {
  std::string_view bytes;
  Kind kind;
  const char* trouble;
};

constexpr const char* kPickle =
    "is a PyTorch file, which can run code when it is opened; save it as safetensors";
constexpr const char* kOldGgml = "is in an old format of llama.cpp; convert it to GGUF";
constexpr Mark kMarks[] = {
    {"GGUF", Kind::kGguf, ""},
    {"\x89HDF\r\n\x1a\n", Kind::kHdf5, "is an HDF5 file, and no model"},
    {"PK\x03\x04", Kind::kForeign, kPickle},      // a zip archive
    {"\x80\x02\x8a\n", Kind::kForeign, kPickle},  // older: a pickle, whose first number is PyTorch's
    {"lmgg", Kind::kForeign, kOldGgml},
    {"fmgg", Kind::kForeign, kOldGgml},
    {"tjgg", Kind::kForeign, kOldGgml},
};

Artifact of_file(const Path& path) {
  const std::string bytes = formats::first_bytes(path, 8), ending = path.extension().string();
  for (const Mark& mark : kMarks)
    if (bytes.starts_with(mark.bytes)) return {mark.kind, path, {}, mark.trouble};
  if (ending == ".bin") return {Kind::kLlama2c, path, {}, ""};
  if (ending == ".safetensors")
    return {Kind::kSafetensors, path, {}, "holds tensors without their model's shape; name its directory"};
  if (ending == ".json") return {Kind::kJson, path, {}, "is JSON, and no model; name its directory"};
  return {Kind::kUnknown, path, {}, "is no model: a model's file must be a GGUF (or a .bin of llama2.c)"};
}

// ---- Directories

constexpr const char* kHolds[] = {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth",
                                  "tf_model.h5", "flax_model.msgpack"};

// Weights that a folder has instead of safetensors.
std::string trouble_with_weights(const Path& directory) {
  if (models::holds_weights(directory)) return "";
  for (const char* name : kHolds)
    if (has(directory / name))
      return fmt::format(
          "holds {} and no model.safetensors; only safetensors are read: save it as such "
          "(transformers: save_pretrained)",
          name);
  return "holds a config.json and no model.safetensors";
}

std::string trouble_with_adapter(const Path& directory) {
  if (has(directory / models::kPeftTensors)) return "";
  if (has(directory / "adapter_model.bin"))
    return "holds adapter_model.bin and no adapter_model.safetensors; only safetensors are read: save it as "
           "such "
           "(peft: save_pretrained)";
  return "holds an adapter_config.json and no adapter_model.safetensors";
}

// The model that a directory holds itself.
std::optional<Artifact> model_in(const Path& directory) {
  if (has(directory / "manifest.json")) return Artifact{Kind::kCheckpoint, directory, {}, ""};
  if (has(directory / "config.json"))
    return Artifact{Kind::kHfFolder, directory, {}, trouble_with_weights(directory)};
  if (has(directory / models::kPeftConfig))
    return Artifact{Kind::kPeft, directory, {}, trouble_with_adapter(directory)};
  if (has(directory / "model.gguf")) return Artifact{Kind::kGguf, directory / "model.gguf", {}, ""};
  for (const Path& place : {directory, directory / "checkpoints"})
    if (!train::list_checkpoints(place).empty()) return Artifact{Kind::kCheckpoints, place, {}, ""};
  return std::nullopt;
}

std::optional<Artifact> data_in(const Path& directory) {
  if (holds_shards(directory))
    return Artifact{Kind::kShards, directory, {}, "holds token shards, and no model"};
  for (const char* part : {"train", "validation"})
    if (holds_shards(directory / part))
      return Artifact{Kind::kPrepared, directory, {}, "holds a prepared text, and no model"};
  for (const Path& place : {directory, directory / "cache"})
    if (has(place / "block-00000.h5"))
      return Artifact{Kind::kTeacherCache, place, {}, "holds a teacher cache, and no model"};
  return std::nullopt;
}

std::string trouble_with_run(const std::vector<Path>& models) {
  if (models.empty()) return "is a run's directory, and holds no model yet";
  if (models.size() == 1) return "";
  std::vector<std::string> names;
  for (const Path& model : models) names.push_back(model.string());
  return fmt::format("holds several models, name one: {}", fmt::join(names, ", "));
}

// It holds nothing that is known: what might have been meant?
Artifact unknown(const Path& directory) {
  std::vector<std::string> ggufs;
  for (const Path& entry : entries_of(directory))
    if (!is_folder(entry) && formats::is_gguf(entry)) ggufs.push_back(entry.filename().string());
  std::string trouble = "holds no model: no manifest.json, config.json, model.gguf or checkpoints";
  if (!ggufs.empty()) trouble += fmt::format("; name one of its files: {}", fmt::join(ggufs, ", "));
  return {Kind::kUnknown, directory, {}, std::move(trouble)};
}

Artifact of_directory(const Path& directory) {
  if (auto model = model_in(directory)) return *std::move(model);
  std::vector<Path> models;
  for (const Path& entry : entries_of(directory))
    if (is_folder(entry) && !is_put_aside(entry) && model_in(entry)) models.push_back(entry);
  if (models.empty())
    if (auto data = data_in(directory)) return *std::move(data);
  if (!models.empty() || has(directory / "recipe.yaml")) {
    std::string trouble = trouble_with_run(models);
    return {Kind::kRun, directory, std::move(models), std::move(trouble)};
  }
  if (has(directory / "result.json"))
    return {Kind::kStage, directory, {}, "is the directory of a stage that makes no model"};
  return unknown(directory);
}

}  // namespace

bool holds_shards(const Path& directory) { return has(directory / "shard-00000.h5"); }

bool is_put_aside(const Path& directory) {
  return directory.filename().string().find(".replaced") != std::string::npos;
}

Artifact identify(const Path& path) {
  if (is_folder(path)) return of_directory(path);
  if (has(path)) return of_file(path);
  return {Kind::kNothing, path, {}, "no such file or directory"};
}

Artifact find_model(const Path& path) {
  Artifact found = identify(path);
  check<IoError>(found.kind != Kind::kNothing,
                 "{}: no such model (a checkpoint, stage, run or HF directory, or a .gguf file)",
                 path.string());
  check<ConfigError>(found.models.size() < 2, "{}: {}", path.string(), found.trouble);
  if (found.kind == Kind::kRun && found.models.size() == 1) found = *model_in(found.models.front());
  check<DataError>(found.trouble.empty(), "{}: {}", found.path.string(), found.trouble);
  return found;
}

}  // namespace retort::artifacts
