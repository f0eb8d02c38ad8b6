// adapter_config.json and AdapterOptions.
#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "formats/json_section.h"
#include "formats/safetensors.h"
#include "models/family.h"
#include "models/frozen_codes.h"
#include "models/peft_folder.h"

namespace retort::models {
namespace {

using formats::Json;

// Keys that are read, and keys that say nothing of results.
const std::vector<std::string> kRead = {"peft_type",
                                        "task_type",
                                        "base_model_name_or_path",
                                        "r",
                                        "lora_alpha",
                                        "use_rslora",
                                        "use_dora",
                                        "target_modules",
                                        "exclude_modules",
                                        "layers_to_transform",
                                        "rank_pattern",
                                        "alpha_pattern",
                                        "modules_to_save",
                                        "ensure_weight_tying",
                                        "bias",
                                        "init_lora_weights"};
const std::vector<std::string> kInert = {"lora_dropout",      "inference_mode", "peft_version",
                                         "revision",          "auto_mapping",   "megatron_core",
                                         "qalora_group_size", "fan_in_fan_out", "layers_pattern"};

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Absent, or as good as.
bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

class Reader {
 public:
  Reader(const Json& json, std::string source) : json_(json), source_(std::move(source)) {
    check<DataError>(json.is_object(), "{}: must hold an object", source_);
    for (const auto& [key, value] : json.items()) {
      if (contains(kRead, key) || contains(kInert, key) || is_off(value)) continue;
      std::vector<std::string> known = kRead;
      known.insert(known.end(), kInert.begin(), kInert.end());
      fail<DataError>("{}: {} is {}, which is not supported here{}", source_, key, value.dump(),
                      did_you_mean(key, known));
    }
  }

  const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  void must_be(const char* key, const std::vector<Json>& legal) const {
    const Json* value = find(key);
    if (value == nullptr || std::find(legal.begin(), legal.end(), *value) != legal.end()) return;
    std::vector<std::string> words;
    for (const Json& one : legal) words.push_back(one.dump());
    fail<DataError>("{}: {} must be {}, got {}", source_, key, fmt::join(words, " or "), value->dump());
  }
  bool flag(const char* key) const {
    const Json* value = find(key);
    if (value != nullptr && !value->is_boolean()) refuse(key, "true or false");
    return value != nullptr && value->get<bool>();
  }
  std::string text(const char* key) const {
    const Json* value = find(key);
    if (value != nullptr && !value->is_string()) refuse(key, "text");
    return value == nullptr ? "" : value->get<std::string>();
  }
  // A list of names, or a single one.
  std::vector<std::string> names(const char* key) const {
    const Json* value = find(key);
    std::vector<std::string> out;
    if (value == nullptr) return out;
    if (value->is_string()) return {value->get<std::string>()};
    if (!value->is_array()) refuse(key, "a list of names");
    for (const Json& name : *value) {
      if (!name.is_string()) refuse(key, "a list of names");
      out.push_back(name.get<std::string>());
    }
    return out;
  }
  std::vector<int64_t> integers(const char* key) const {
    const Json* value = find(key);
    std::vector<int64_t> out;
    if (value == nullptr) return out;
    for (const Json& number : value->is_array() ? *value : Json::array({*value})) {
      if (!number.is_number_integer()) refuse(key, "a list of layers");
      out.push_back(number.get<int64_t>());
    }
    return out;
  }
  double number(const char* key, const Json& value) const {
    if (!value.is_number() || !(value.get<double>() > 0) || value.get<double>() > 1e9)
      refuse(key, "a number above 0");
    return value.get<double>();
  }
  int64_t rank(const char* key, const Json& value) const {
    if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > 65536)
      refuse(key, "a whole number in [1, 65536]");
    return value.get<int64_t>();
  }
  [[noreturn]] void refuse(const char* key, const char* rule) const {
    const Json* value = find(key);
    fail<DataError>("{}: {} must be {}, got {}", source_, key, rule, value ? value->dump() : "nothing");
  }

 private:
  const Json& json_;
  std::string source_;
};

void read_modules(const Reader& reader, AdapterOptions& out) {
  const Json* targets = reader.find("target_modules");
  const bool pattern = targets != nullptr && targets->is_string() && *targets != "all-linear";
  out.modules = pattern ? std::vector<std::string>() : reader.names("target_modules");
  if (pattern) out.pattern = targets->get<std::string>();
  if (!pattern && out.modules.empty()) reader.refuse("target_modules", "a list of modules, or a pattern");
  const Json* excluded = reader.find("exclude_modules");
  if (excluded != nullptr && excluded->is_string()) reader.refuse("exclude_modules", "a list of names");
  out.exclude = reader.names("exclude_modules");
  out.layers = reader.integers("layers_to_transform");
  out.whole = reader.names("modules_to_save");
}

// {pattern: value}, in order.
void read_patterns(const Reader& reader, AdapterOptions& out) {
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    const Json* patterns = reader.find(key);
    if (patterns == nullptr) continue;
    if (!patterns->is_object()) reader.refuse(key, "an object of patterns");
    const bool ranks = std::string_view(key) == "rank_pattern";
    for (const auto& [pattern, value] : patterns->items())
      out.overrides.push_back(
          {pattern, ranks ? reader.rank(key, value) : 0, ranks ? 0.0 : reader.number(key, value)});
  }
}

// Without what the base was kept as.
AdapterOptions options_of(const Reader& reader) {
  AdapterOptions out;
  const Json *rank = reader.find("r"), *alpha = reader.find("lora_alpha");
  out.rank = rank ? reader.rank("r", *rank) : 8;
  out.alpha = alpha ? reader.number("lora_alpha", *alpha) : 8.0;
  out.rslora = reader.flag("use_rslora");
  out.dora = reader.flag("use_dora");
  out.tied = reader.flag("ensure_weight_tying");
  read_modules(reader, out);
  read_patterns(reader, out);
  return out;
}

std::string base_form(const Path& tensors) {
  const formats::SafetensorsFile file(tensors);
  const auto found = file.metadata().find(kBaseForm);
  if (found == file.metadata().end()) return "f32";
  const std::vector<std::string> known = frozen_code_names();
  check<DataError>(contains(known, found->second), "{}: {} must be one of {}, got \"{}\"", tensors.string(),
                   kBaseForm, fmt::join(known, ", "), found->second);
  return found->second;
}

// Whole numbers as such, which is how peft writes alphas.
Json alpha_json(double alpha) {
  const auto whole = static_cast<int64_t>(alpha);
  return static_cast<double>(whole) == alpha ? Json(whole) : Json(alpha);
}

}  // namespace

PeftConfig read_peft_config(const Path& directory) {
  const Path path = directory / kPeftConfig;
  const Json json = formats::read_json(path, uint64_t{1} << 24);
  const Reader reader(json, path.string());
  reader.must_be("peft_type", {"LORA"});
  check<DataError>(reader.find("peft_type") != nullptr, "{}: lacks peft_type", path.string());
  reader.must_be("task_type", {"CAUSAL_LM"});
  reader.must_be("bias", {"none"});
  reader.must_be("init_lora_weights", {true, false, "gaussian"});
  PeftConfig out{options_of(reader), reader.text("base_model_name_or_path")};
  out.options.base = base_form(directory / kPeftTensors);
  return out;
}

AdapterOptions kept_by_peft(const Model& model, const AdapterOptions& options) {
  if (families().at(model.spec().family).hf_tensors == nullptr) return options;
  const Json json = peft_config_json(model, {options, ""});
  AdapterOptions out = options_of(Reader(json, kPeftConfig));
  out.base = options.base;
  return out;
}

Json peft_config_json(const Model& model, const PeftConfig& config) {
  const AdapterOptions& options = config.options;
  Json ranks = Json::object(), alphas = Json::object();
  for (const ModuleRank& one : options.overrides) {
    if (one.rank > 0 && !ranks.contains(one.modules)) ranks[one.modules] = one.rank;
    if (one.alpha > 0 && !alphas.contains(one.modules)) alphas[one.modules] = alpha_json(one.alpha);
  }
  const auto or_null = [](const auto& list) { return list.empty() ? Json() : Json(list); };
  Json targets = options.pattern;
  if (options.pattern.empty()) {
    std::vector<std::string> names = options.modules;
    if (contains(names, "all-linear")) {  // peft stores it expanded
      std::erase(names, "all-linear");
      for (const AdaptedModule& module : adapted_modules(model, options))
        if (module.role == Role::kMatrix) names.push_back(module.name);
    }
    targets = names;
  }
  const Family& family = families().at(model.spec().family);
  const std::vector<ForeignTensor> tensors = family.hf_tensors(model.spec());
  const bool transposed =
      std::any_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.transposed; });
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", config.base},
          {"inference_mode", true},
          {"r", options.rank},
          {"lora_alpha", alpha_json(options.alpha)},
          {"lora_dropout", 0.0},
          {"use_rslora", options.rslora},
          {"use_dora", options.dora},
          {"target_modules", targets},
          {"exclude_modules", or_null(options.exclude)},
          {"layers_to_transform", or_null(options.layers)},
          {"rank_pattern", ranks},
          {"alpha_pattern", alphas},
          {"modules_to_save", or_null(options.whole)},
          {"ensure_weight_tying", options.tied},
          {"fan_in_fan_out", transposed},
          {"bias", "none"},
          {"init_lora_weights", true}};
}

}  // namespace retort::models
