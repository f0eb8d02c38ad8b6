// Grammar: config.json; model.safetensors, or model-*.safetensors with model.safetensors.index.json
// {"metadata": {...}, "weight_map": {tensor: file}}. docs/formats.md has the keys of config.json.
#include "models/hf_folder.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "formats/finite_values.h"
#include "models/family.h"
#include "models/hf_quantized.h"
#include "models/stored_model.h"

namespace retort::models {
namespace {

using formats::Json;
using formats::SafetensorsFile;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

const Family& family_of(const Json& config, const std::string& source) {
  const std::string type = formats::json_text(config, "model_type", source);
  std::vector<std::string> known;
  for (const Family& family : families())
    for (const std::string& name : family.hf_model_types) {
      if (name == type) return family;
      known.push_back(name);
    }
  fail<DataError>("{}: model_type \"{}\" is not known; known: {}", source, type, fmt::join(known, ", "));
}

// What config.json says.
struct Config {
  std::string source;
  Json json;
  const Family& family;
  DecoderSpec spec;
};

Config read_config(const Path& directory) {
  const Path path = directory / "config.json";
  Json json = formats::read_json(path);
  const Family& family = family_of(json, path.string());
  DecoderSpec spec = family.spec_from_hf(json, path.string());
  check_foreign_spec(spec, path.string());  // before anything is as large as it says
  return {path.string(), std::move(json), family, std::move(spec)};
}

// The files of a folder by their names, and which of them holds each tensor.
struct Weights {
  std::map<std::string, SafetensorsFile> files;
  std::map<std::string, const SafetensorsFile*> where;
};

void add_tensors(Weights& weights, const SafetensorsFile& file) {
  for (const auto& [name, entry] : file.entries())
    check<DataError>(weights.where.emplace(name, &file).second, "{}: holds {}, which another file holds too",
                     file.path().string(), name);
}

Weights open_weights(const Path& directory) {
  Weights weights;
  const Path index = directory / kIndex, single = directory / kSingle;
  if (std::filesystem::exists(single) || !std::filesystem::exists(index)) {  // formats/said.h
    add_tensors(weights, weights.files.emplace("", SafetensorsFile(single)).first->second);
    return weights;
  }
  const Json json = formats::read_json(index);
  const auto map = json.find("weight_map");
  check<DataError>(map != json.end() && map->is_object(), "{}: lacks the object weight_map", index.string());
  for (const auto& [tensor, value] : map->items()) {
    check<DataError>(value.is_string(), "{}: weight_map.{} must be a file name", index.string(), tensor);
    const std::string name = value.get<std::string>();
    check<DataError>(!name.empty() && Path(name) == Path(name).filename(),
                     "{}: weight_map.{} must name a file of the folder, got \"{}\"", index.string(), tensor,
                     name);
    if (!weights.files.contains(name))
      add_tensors(weights, weights.files.emplace(name, SafetensorsFile(directory / name)).first->second);
    check<DataError>(weights.files.at(name).contains(tensor), "{}: says that {} is in {}, which lacks it",
                     index.string(), tensor, name);
  }
  return weights;
}

// The folder's tensors under the family's full names, without buffers.
ForeignFile foreign_file(const Path& directory, const std::shared_ptr<const Weights>& weights,
                         const Family& family) {
  const bool prefixed = std::any_of(weights->where.begin(), weights->where.end(), [&](const auto& tensor) {
    return tensor.first.starts_with(family.hf_prefix);
  });
  ForeignFile out{directory.string(), {}, {}};
  std::map<std::string, std::string> stored_name;
  for (const auto& [name, file] : weights->where) {
    const bool buffer =
        std::any_of(family.hf_buffers.begin(), family.hf_buffers.end(),
                    [&name = name](const std::string& suffix) { return name.ends_with(suffix); });
    if (buffer) continue;
    const std::string full = prefixed || name == "lm_head.weight" ? name : family.hf_prefix + name;
    out.shapes[full] = file->entries().at(name).shape;
    stored_name[full] = name;
  }
  out.values = [stored_name, weights](const std::string& full) {
    const std::string& name = stored_name.at(full);
    return weights->where.at(name)->tensor(name);
  };
  return out;
}

// The one feed-forward network of all layers, kept once, as layer 0's.
bool keeps_one_ffn(const std::vector<ForeignTensor>& tensors, const ForeignFile& file) {
  bool others = false;
  for (const ForeignTensor& t : tensors) {
    if (t.parameter.find(".ffn.") == std::string::npos) continue;
    const bool first = t.parameter.starts_with("layers.0.");
    if (file.shapes.contains(t.name) != first) return false;
    others = others || !first;
  }
  return others;
}

// The folder's tensors as plain ones.
ForeignFile readable(const Path& directory, const Config& config) {
  ForeignFile file =
      foreign_file(directory, std::make_shared<const Weights>(open_weights(directory)), config.family);
  const auto quantized = config.json.find("quantization_config");
  if (quantized == config.json.end() || quantized->is_null()) return file;
  return dequantized(std::move(file), *quantized, config.source);
}

// Tensors as the family's files hold them: expanded, fused, transposed, packed; a tied head is left out.
formats::NamedTensors hf_weights(const Model& model, const Family& family, WeightMap& map,
                                 at::ScalarType dtype, const HfPacker& pack) {
  const Parameters& parameters = model.parameters();
  std::map<std::string, at::Tensor> made;  // by unique parameter
  const auto values = [&](const Parameter& p) {
    at::Tensor& known = made[p.name];
    if (!known.defined()) known = map.apply(p, p.master).to(dtype);
    return is_padded(p, model.spec()) ? known.narrow(0, 0, model.tokens()) : known;
  };
  const std::vector<ForeignTensor> tensors = family.hf_tensors(model.spec());
  formats::NamedTensors out;
  for (size_t i = 0; i < tensors.size();) {
    const ForeignTensor& first = tensors[i];
    HfMatrix matrix{first.name.substr(0, first.name.rfind('.')), {}, first.transposed};
    for (; i < tensors.size() && tensors[i].name == first.name; ++i)  // of one fused tensor, adjacent
      matrix.rows.push_back(&parameters.at(tensors[i].parameter));
    if (parameters.is_tied_head(first.parameter)) continue;
    const bool packable = pack && matrix.rows[0]->role == Role::kMatrix;
    const formats::NamedTensors packed = packable ? pack(matrix) : formats::NamedTensors();
    for (const auto& [part, tensor] : packed) out.emplace_back(matrix.name + "." + part, tensor);
    if (!packed.empty()) continue;
    std::vector<at::Tensor> parts;
    for (const Parameter* p : matrix.rows) parts.push_back(values(*p));
    const at::Tensor whole = parts.size() == 1 ? parts[0] : at::cat(parts);
    out.emplace_back(first.name, first.transposed ? whole.t() : whole);
  }
  return out;
}

void write_weights(FileSystem& files, const Path& folder, const formats::NamedTensors& tensors,
                   int64_t shard_bytes) {
  std::vector<formats::NamedTensors> shards(1);
  int64_t total = 0, size = 0;
  for (const auto& tensor : tensors) {
    const auto bytes = static_cast<int64_t>(tensor.second.nbytes());
    if (size > 0 && size + bytes > shard_bytes) shards.emplace_back(), size = 0;
    shards.back().push_back(tensor);
    size += bytes;
    total += bytes;
  }
  if (shards.size() == 1) return formats::write_safetensors(files, folder / kSingle, tensors);
  Json map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    formats::write_safetensors(files, folder / name, shards[i]);
    for (const auto& [tensor, values] : shards[i]) map[tensor] = name;
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  write_durably(files, folder / kIndex, index.dump(2) + "\n");
}

const char* dtype_name(at::ScalarType dtype) {
  if (dtype == at::kFloat) return "float32";
  if (dtype == at::kHalf) return "float16";
  check<ConfigError>(dtype == at::kBFloat16, "[hf] dtype must be f32, f16 or bf16, got {}",
                     c10::toString(dtype));
  return "bfloat16";
}

Json config_json(const Family& family, const DecoderSpec& spec, const char* dtype, const HfExtras& extras) {
  DecoderSpec plain = without_padding(spec);  // what the file holds: every layer has its own tensors
  plain.share_ffn = false;
  plain.repeat = 1;
  Json config = family.hf_config(plain);
  config["dtype"] = dtype;
  config["torch_dtype"] = dtype;
  for (const auto& [key, value] : extras.config.items()) config[key] = value;
  return config;
}

Json generation_json(const Json& config, const Json& given) {
  Json out = given.empty() ? Json({{"_from_model_config", true}}) : given;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (config.contains(key) && !out.contains(key)) out[key] = config.at(key);
  return out;
}

// Whether an export with these extras writes a file of that name.
bool writes(const std::string& name, const HfExtras& extras) {
  return name == "config.json" || name == "generation_config.json" || name == kIndex ||
         (name.starts_with("model") && name.ends_with(".safetensors")) || extras.files.contains(name);
}

// What keeps a folder from being an older export, which may go; "" when it is one.
std::string foreign_to_export(const Path& folder, const HfExtras& extras) {
  if (!std::filesystem::is_directory(folder)) return "it is no folder";
  std::set<std::string> foreign;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || !writes(name, extras)) foreign.insert(name);
  }
  if (!foreign.empty()) return fmt::format("it holds {}, which an export does not write", *foreign.begin());
  const Path config = folder / "config.json";
  if (!std::filesystem::exists(config)) return "it lacks config.json";
  try {
    formats::json_text(formats::read_json(config), "model_type", config.string());
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

// A folder of that name is replaced only when nothing but an older export is lost.
void check_replaceable(const Path& target, const HfExtras& extras) {
  if (!std::filesystem::exists(std::filesystem::symlink_status(target))) return;
  const std::string why = foreign_to_export(target, extras);
  check<IoError>(why.empty(),
                 "{}: exists and is not replaced: {}; name a folder that does not exist, or move this one "
                 "away",
                 target.string(), why);
}

// The new folder takes the name; an older export of that name steps aside first.
void replace_folder(FileSystem& files, const Path& fresh, const Path& directory) {
  const Path old = directory.string() + fmt::format(".old.{}", ::getpid());
  const bool exists = std::filesystem::exists(directory);
  if (exists) files.rename(directory, old);
  files.rename(fresh, directory);
  files.sync_directory(directory.parent_path());
  if (exists) files.remove_all(old);
}

}  // namespace

StoredModel stored_hf_folder(const Path& directory) {
  const Config config = read_config(directory);
  ForeignFile file = readable(directory, config);
  DecoderSpec spec = config.spec;
  spec.share_ffn = keeps_one_ffn(config.family.hf_tensors(spec), file);
  return stored_foreign(spec, config.family.hf_tensors, std::move(file));
}

std::unique_ptr<Decoder> load_hf_folder(const Path& directory) {
  return load_foreign(stored_hf_folder(directory));
}

DecoderSpec hf_spec(const Path& directory) {
  const Config config = read_config(directory);
  DecoderSpec spec = config.spec;
  if (!holds_weights(directory)) return spec;
  spec.share_ffn = keeps_one_ffn(config.family.hf_tensors(spec), readable(directory, config));
  return spec;
}

bool holds_weights(const Path& directory) {
  return std::filesystem::exists(directory / kIndex) || std::filesystem::exists(directory / kSingle);
}

void save_hf_folder(FileSystem& files, const Path& directory, const Model& model, WeightMap& map,
                    at::ScalarType dtype, const HfExtras& extras) {
  const at::NoGradGuard no_grad;
  check<InternalError>(!model.parameters().has_adapters(), "[hf] adapters must be merged first");
  Path target = std::filesystem::absolute(directory).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/"
  check_replaceable(target, extras);
  const Family& family = families().at(model.spec().family);
  check<InternalError>(family.hf_config != nullptr, "[hf] a {} model has no form in a folder", family.name);
  const Json config = config_json(family, model.spec(), dtype_name(dtype), extras);
  const Path fresh = target.string() + fmt::format(".tmp.{}", ::getpid());
  try {
    files.remove_all(fresh);
    files.make_directories(fresh);
    const formats::NamedTensors weights = hf_weights(model, family, map, dtype, extras.pack);
    for (const auto& [name, values] : weights) formats::check_in_range("[export]", name, values);
    write_weights(files, fresh, weights, extras.shard_bytes);
    write_durably(files, fresh / "config.json", config.dump(2) + "\n");
    write_durably(files, fresh / "generation_config.json",
                  generation_json(config, extras.generation).dump(2) + "\n");
    for (const auto& [name, content] : extras.files) write_durably(files, fresh / name, content);
    replace_folder(files, fresh, target);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(fresh, ignored);
    throw;
  }
}

}  // namespace retort::models
