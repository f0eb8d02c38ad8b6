#include "data/templates/store.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "data/templates/limits.h"
#include "formats/gguf.h"

namespace retort::data {
namespace {

namespace fs = std::filesystem;
using formats::Json;

constexpr const char* kSpecial[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

std::string template_file(const Path& path) { return read_text(path, TemplateLimits{}.source); }

void read_special(const Path& path, StoredTemplates& out) {
  if (!fs::exists(path)) return;
  const Json config = formats::read_json(path);
  if (!config.is_object()) return;
  for (const char* name : kSpecial) {
    const auto found = config.find(name);
    if (found == config.end() || out.special.contains(name)) continue;
    const Json& text = found->is_object() && found->contains("content") ? found->at("content") : *found;
    if (text.is_string()) out.special[name] = text;
  }
}

// generation_config.json's: one id, or several.
void read_ends(const Path& path, StoredTemplates& out) {
  if (!fs::exists(path)) return;
  const Json config = formats::read_json(path);
  if (!config.is_object() || !config.contains("eos_token_id")) return;
  const Json& ids = config.at("eos_token_id");
  for (const Json& id : ids.is_array() ? ids : Json::array({ids}))
    if (id.is_number_integer() && id >= 0 && id <= INT32_MAX) out.ends.push_back(id.get<int32_t>());
}

// Of tokenizer_config.json.
NamedTemplates config_templates(const Path& path) {
  NamedTemplates out;
  const Json config = fs::exists(path) ? formats::read_json(path) : Json();
  if (!config.is_object() || !config.contains("chat_template")) return out;
  const Json& form = config.at("chat_template");
  if (form.is_string()) out.emplace_back("default", form.get<std::string>());
  if (form.is_array())
    for (const Json& one : form)
      out.emplace_back(formats::json_text(one, "name", path.string()),
                       formats::json_text(one, "template", path.string()));
  return out;
}

StoredTemplates read_folder(const Path& folder) {
  StoredTemplates out{folder.string(), folder_templates(folder), Json::object(), {}};
  read_special(folder / "tokenizer_config.json", out);
  read_special(folder / "special_tokens_map.json", out);
  read_ends(folder / "generation_config.json", out);
  return out;
}

StoredTemplates read_gguf(const Path& path) {
  const formats::GgufFile file(path);
  StoredTemplates out{path.string(), gguf_templates(file), Json::object(), {}};
  const formats::GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  const auto* texts = tokens != nullptr ? std::get_if<std::vector<std::string>>(tokens) : nullptr;
  const auto id = [&](const char* key) { return file.integer(key, -1); };
  for (const auto& [name, key] : {std::pair("bos_token", "tokenizer.ggml.bos_token_id"),
                                  {"eos_token", "tokenizer.ggml.eos_token_id"},
                                  {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                  {"sep_token", "tokenizer.ggml.seperator_token_id"},
                                  {"pad_token", "tokenizer.ggml.padding_token_id"},
                                  {"cls_token", "tokenizer.ggml.cls_token_id"},
                                  {"mask_token", "tokenizer.ggml.mask_token_id"}})
    if (const int64_t token = id(key);
        texts != nullptr && token >= 0 && token < static_cast<int64_t>(texts->size()))
      out.special[name] = (*texts)[static_cast<size_t>(token)];
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const int64_t token = id(key); token >= 0 && token <= INT32_MAX)
      out.ends.push_back(static_cast<int32_t>(token));
  return out;
}

bool is_gguf(const Path& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return bytes.size() >= 4 && std::string_view(reinterpret_cast<const char*>(bytes.data()), 4) == "GGUF";
}

}  // namespace

NamedTemplates folder_templates(const Path& folder) {
  NamedTemplates out;
  if (const Path file = folder / "chat_template.jinja"; fs::exists(file))
    out.emplace_back("default", template_file(file));
  if (const Path more = folder / "additional_chat_templates"; fs::is_directory(more)) {
    std::vector<Path> files;
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const Path& file : files) out.emplace_back(file.stem().string(), template_file(file));
  }
  return out.empty() ? config_templates(folder / "tokenizer_config.json") : out;
}

NamedTemplates gguf_templates(const formats::GgufFile& file) {
  NamedTemplates out;
  const auto add = [&](const std::string& name, const std::string& key) {
    if (std::string text = file.text(key, ""); !text.empty()) out.emplace_back(name, std::move(text));
  };
  add("default", "tokenizer.chat_template");
  const formats::GgufValue* names = file.find("tokenizer.chat_templates");
  const auto* list = names != nullptr ? std::get_if<std::vector<std::string>>(names) : nullptr;
  if (list == nullptr) return out;
  for (const std::string& name : *list) {
    std::string key = name;
    for (char& c : key)
      if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
    add(name, "tokenizer.chat_template." + key);
  }
  return out;
}

Path folder_of(const Path& file) { return file.parent_path().empty() ? Path(".") : file.parent_path(); }

StoredTemplates read_templates(const Path& address) {
  if (fs::is_directory(address)) {
    const bool folder =
        fs::exists(address / "tokenizer_config.json") || fs::exists(address / "chat_template.jinja");
    return !folder && fs::exists(address / "model.gguf") ? read_gguf(address / "model.gguf")
                                                         : read_folder(address);
  }
  if (is_gguf(address)) return read_gguf(address);
  StoredTemplates out = read_folder(folder_of(address));
  out.source = address.string();
  out.templates = {{"default", template_file(address)}};
  return out;
}

const std::string& choose_template(const StoredTemplates& stored, std::string_view name, bool tools) {
  std::vector<std::string> names;
  for (const auto& [one, text] : stored.templates) names.push_back(one);
  const auto find = [&](std::string_view wanted) -> const std::string* {
    for (const auto& [one, text] : stored.templates)
      if (one == wanted) return &text;
    return nullptr;
  };
  check<DataError>(!names.empty(), "{}: holds no chat template", stored.source);
  if (!name.empty()) {
    const std::string* found = find(name);
    check<DataError>(found != nullptr, "{}: has no chat template \"{}\", it has {}", stored.source, name,
                     fmt::join(names, ", "));
    return *found;
  }
  if (const std::string* found = find("tool_use"); tools && found != nullptr) return *found;
  const std::string* found = find("default");
  check<DataError>(found != nullptr,
                   "{}: has chat templates {}, and none of them is the default: choose one by name",
                   stored.source, fmt::join(names, ", "));
  return *found;
}

}  // namespace retort::data
