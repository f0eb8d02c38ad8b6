#include "models/peft_folder.h"

#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "formats/safetensors.h"
#include "models/family.h"

namespace retort::models {
namespace {

constexpr const char* kPrefix = "base_model.model.";

// A tensor of the file: our parameters, one below another, that it holds.
struct PeftTensor {
  std::string name;
  std::vector<std::string> parameters;
  bool transposed = false;
  bool base = false;  // the base's, for comparing; may be absent
};

std::vector<PeftTensor> of_module(const AdaptedModule& module, const Parameters& parameters) {
  const std::string stem = kPrefix + module.name;
  std::vector<std::string> a, b, m;
  for (const std::string& use : module.uses) {
    const LowRank& adapter = parameters.adapter(use);
    a = {adapter.a->name};
    b.push_back(adapter.b->name);
    if (adapter.magnitude != nullptr) m.push_back(adapter.magnitude->name);
  }
  std::vector<PeftTensor> out;
  if (module.role == Role::kEmbedding)
    out = {{stem + ".lora_embedding_A", b, true}, {stem + ".lora_embedding_B", a, true}};
  else
    out = {{stem + ".lora_A.weight", a}, {stem + ".lora_B.weight", b}};
  if (!m.empty()) out.push_back({stem + ".lora_magnitude_vector", m});
  if (module.role != Role::kMatrix) out.push_back({stem + ".base_layer.weight", module.uses, false, true});
  return out;
}

// All tensors of the adapter of a model that adapt() made.
std::vector<PeftTensor> tensors_of(const Model& model, const AdapterOptions& options) {
  const Parameters& parameters = model.parameters();
  std::vector<PeftTensor> out;
  const auto add = [&](const AdaptedModule& module) {
    for (PeftTensor& tensor : of_module(module, parameters)) out.push_back(std::move(tensor));
  };
  for (const AdaptedModule& module : adapted_modules(model, options)) {
    add(module);
    if (module.tied) add({.name = "lm_head", .uses = {"lm_head.weight"}, .role = Role::kHead});
  }
  for (const WholeParameter& whole : whole_parameters(model, options)) {
    const std::string name = kPrefix + whole.name;
    if (out.empty() || out.back().name != name) out.push_back({name, {}, whole.transposed});
    out.back().parameters.push_back(whole.use);
  }
  return out;
}

std::vector<int64_t> shape_of(const PeftTensor& tensor, const Parameters& parameters) {
  std::vector<int64_t> shape = parameters.at(tensor.parameters.front()).shape;
  for (size_t i = 1; i < tensor.parameters.size(); ++i)
    shape[0] += parameters.at(tensor.parameters[i]).shape[0];
  if (tensor.transposed) std::swap(shape.at(0), shape.at(1));
  return shape;
}

// Exactly the tensors that the configuration names, each of its shape.
void check_tensors(const std::vector<PeftTensor>& tensors, const Parameters& parameters,
                   const formats::SafetensorsFile& file) {
  const std::string where = file.path().string();
  std::vector<std::string> known;
  for (const PeftTensor& tensor : tensors) {
    known.push_back(tensor.name);
    const auto found = file.entries().find(tensor.name);
    if (found == file.entries().end()) {
      check<DataError>(tensor.base, "{}: lacks {}, which {} names", where, tensor.name, kPeftConfig);
      continue;
    }
    const std::vector<int64_t> shape = shape_of(tensor, parameters);
    check<DataError>(found->second.shape == shape, "{}: {} must have shape {} for this base and {}, got {}",
                     where, tensor.name, format_shape(shape), kPeftConfig, format_shape(found->second.shape));
  }
  for (const auto& [name, entry] : file.entries())
    check<DataError>(std::find(known.begin(), known.end(), name) != known.end(),
                     "{}: holds {}, which is no tensor that {} names{}", where, name, kPeftConfig,
                     did_you_mean(name, known));
}

void read_tensor(const PeftTensor& tensor, const formats::SafetensorsFile& file, Parameters& parameters,
                 std::set<std::string>& done) {
  const std::string where = file.path().string();
  if (tensor.base && !file.contains(tensor.name)) return;
  const at::Tensor stored = file.tensor(tensor.name);
  check<DataError>(stored.is_floating_point(), "{}: {} must hold floating point numbers, got {}", where,
                   tensor.name, c10::toString(stored.scalar_type()));
  const at::Tensor values = tensor.transposed ? stored.t() : stored;
  int64_t row = 0;
  for (const std::string& name : tensor.parameters) {
    Parameter& p = parameters.at(name);
    const at::Tensor part = values.narrow(0, row, p.shape[0]);
    row += p.shape[0];
    if (tensor.base) {
      check<DataError>(at::equal(p.master.to(part.scalar_type()), part),
                       "{}: {} is not the weight of this base: the adapter was made for another", where,
                       tensor.name);
    } else if (done.insert(p.name).second) {
      p.master.copy_(part);
    } else {  // of a tie, which the file holds twice
      check<DataError>(at::equal(p.master, part.to(at::kFloat)),
                       "{}: {} must be the same as its other side's, since the two are tied", where,
                       tensor.name);
    }
  }
}

bool is_adapter_folder(const Path& directory, const std::map<std::string, std::string>& beside) {
  if (!std::filesystem::is_directory(directory)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name == kPeftConfig || name == kPeftTensors || name == "README.md";
    if (!ours && !beside.contains(name)) return false;
  }
  return true;
}

}  // namespace

std::unique_ptr<Model> load_peft(const Path& directory, const PeftConfig& config,
                                 std::unique_ptr<Model> base) {
  const at::NoGradGuard no_grad;
  const formats::SafetensorsFile file(directory / kPeftTensors);
  const Family& family = families().at(base->spec().family);
  check<DataError>(family.hf_tensors != nullptr, "{}: is for a model of transformers, and a {} model is none",
                   directory.string(), family.name);
  try {
    const auto shapes = adapt(make_model(base->spec(), at::kMeta), config.options, 0);
    check_tensors(tensors_of(*shapes, config.options), shapes->parameters(), file);
    base = adapt(std::move(base), config.options, 0);
  } catch (const ConfigError& error) {  // a choice of the file, not of a recipe
    fail<DataError>("{}: {}", (directory / kPeftConfig).string(), error.what());
  }
  std::set<std::string> done;
  for (const PeftTensor& tensor : tensors_of(*base, config.options))
    read_tensor(tensor, file, base->parameters(), done);
  return base;
}

void save_peft(FileSystem& files, const Path& directory, const Model& model, const PeftConfig& config,
               const std::map<std::string, std::string>& beside) {
  const at::NoGradGuard no_grad;
  Path target = std::filesystem::absolute(directory).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/"
  const bool exists = std::filesystem::exists(std::filesystem::symlink_status(target));
  check<IoError>(!exists || is_adapter_folder(target, beside),
                 "{}: exists and is no adapter; not replaced: name another folder", target.string());
  formats::NamedTensors tensors;
  for (const PeftTensor& tensor : tensors_of(model, config.options)) {
    std::vector<at::Tensor> parts;
    for (const std::string& name : tensor.parameters) parts.push_back(model.parameters().at(name).master);
    const at::Tensor whole = parts.size() == 1 ? parts[0] : at::cat(parts);
    tensors.emplace_back(tensor.name, (tensor.transposed ? whole.t() : whole).contiguous());
  }
  const std::string process = std::to_string(::getpid());
  const Path fresh = target.string() + ".tmp." + process, old = target.string() + ".old." + process;
  try {
    files.remove_all(fresh);
    files.make_directories(fresh);
    formats::write_safetensors(files, fresh / kPeftTensors, tensors,
                               {{"format", "pt"}, {kBaseForm, config.options.base}});
    write_durably(files, fresh / kPeftConfig, peft_config_json(model, config).dump(2) + "\n");
    for (const auto& [name, text] : beside) write_durably(files, fresh / name, text);
    if (exists) files.rename(target, old);
    files.rename(fresh, target);
    files.sync_directory(target.parent_path());
    if (exists) files.remove_all(old);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(fresh, ignored);
    throw;
  }
}

}  // namespace retort::models
