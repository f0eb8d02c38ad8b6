#include "models/generation_facts.h"

#include <algorithm>

#include "core/error.h"
#include "formats/said.h"

namespace retort::models {
namespace {

using formats::Json;

constexpr const char* kEnds = "eos_token_id";
constexpr const char *kEos = "tokenizer.ggml.eos_token_id", *kEot = "tokenizer.ggml.eot_token_id",
                     *kEom = "tokenizer.ggml.eom_token_id";

bool has(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && !found->is_null();
}

void check_ends(const Json& object, const std::string& source) {
  if (!has(object, kEnds)) return;
  const Json& ends = object.at(kEnds);
  const auto is_id = [](const Json& id) { return id.is_number_integer(); };
  check<DataError>(is_id(ends) || (ends.is_array() && std::all_of(ends.begin(), ends.end(), is_id)),
                   "{}: eos_token_id must be a token's id, a list of them or null, got {}", source,
                   ends.dump());
}

Json read_object(const Path& path) {
  Json object = formats::read_json(path);
  check<DataError>(object.is_object(), "{}: must hold an object", path.string());
  check_ends(object, path.string());
  return object;
}

}  // namespace

Json hf_generation(const Path& directory) {
  const Json config = read_object(directory / "config.json");
  const Path path = directory / "generation_config.json";
  const bool own = std::filesystem::exists(path);
  Json out = own ? read_object(path) : Json::object();
  for (const char* key : {"bos_token_id", kEnds, "pad_token_id"})
    if (const formats::Said said = formats::first_said(
            {formats::said_in(out, key, path.string()), formats::said_in(config, key, "config.json")});
        said.something())
      out[key] = Json(*said.value);
  if (!own && !out.empty()) out["_from_model_config"] = true;
  return out;
}

Json gguf_generation(const formats::GgufFile& file) {
  Json ends = Json::array();
  for (const char* key : {kEos, kEom, kEot})
    if (file.find(key) != nullptr) ends.push_back(file.integer(key));
  if (ends.empty()) return Json::object();
  return {{kEnds, ends.size() == 1 ? Json(ends.front()) : ends}};
}

std::vector<int32_t> end_tokens(const Json& generation, int64_t vocabulary) {
  if (!has(generation, kEnds)) return {};
  const Json& ends = generation.at(kEnds);
  std::vector<int32_t> out;
  for (const Json& id : ends.is_array() ? ends : Json::array({ends})) {
    // -1, and 2^32 - 1 in a GGUF, mean none; an unsigned number beyond 2^63 turns negative here
    const auto token = id.get<int64_t>();
    if (token < 0 || token >= vocabulary) continue;
    if (std::find(out.begin(), out.end(), token) == out.end()) out.push_back(static_cast<int32_t>(token));
  }
  return out;
}

formats::GgufMetadata with_end_tokens(formats::GgufMetadata tokenizer, const std::vector<int32_t>& ends) {
  if (ends.empty()) return tokenizer;
  std::erase_if(tokenizer, [](const auto& entry) { return entry.first == kEos; });
  tokenizer.emplace_back(kEos, static_cast<uint32_t>(ends.front()));
  const size_t count = ends.size();
  if (count > 1) tokenizer.emplace_back(kEot, static_cast<uint32_t>(ends[count - 1]));
  if (count > 2) tokenizer.emplace_back(kEom, static_cast<uint32_t>(ends[count - 2]));
  return tokenizer;
}

}  // namespace retort::models
