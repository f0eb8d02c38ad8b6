#include "data/tokenizers/companions.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/error.h"
#include "data/templates/store.h"
#include "data/tokenizers/tokenizer_json.h"
#include "formats/said.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

namespace fs = std::filesystem;
using formats::Json;
using formats::said_in;
using formats::shown;

constexpr const char* kDecoder = "added_tokens_decoder";
constexpr const char *kConfig = "tokenizer_config.json", *kMap = "special_tokens_map.json",
                     *kAdded = "added_tokens.json";

Json read_object(const Path& path) {
  if (!fs::exists(path)) return Json::object();
  Json object = formats::read_json(path);
  check<DataError>(object.is_object(), "{}: must hold an object", path.string());
  return object;
}

// A token's text, or an object that describes it.
bool names_token(const Json& value) {
  return value.is_object() || (value.is_string() && !value.get_ref<const std::string&>().empty());
}

bool flag_of(const Json& token, const char* key, bool absent) {
  const auto found = token.is_object() ? token.find(key) : token.end();
  return token.is_object() && found != token.end() && found->is_boolean() ? found->get<bool>() : absent;
}

// A token as tokenizer_config.json describes it: its text, or an object with its flags.
AddedToken described(const Json& token, bool special, const std::string& where) {
  const Json* text = token.is_object() ? said_in(token, "content", where).value : &token;
  check<DataError>(text != nullptr && text->is_string() && !text->get_ref<const std::string&>().empty(),
                   "{}: must be a token's text, or an object with its \"content\"", where);
  AddedToken out{.text = text->get<std::string>(), .special = flag_of(token, "special", special)};
  out.single_word = flag_of(token, "single_word", false);
  out.lstrip = flag_of(token, "lstrip", false);
  out.rstrip = flag_of(token, "rstrip", false);
  out.normalized = flag_of(token, "normalized", !out.special);
  return out;
}

int32_t id_in(const std::string& text, const std::string& where) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  check<DataError>(error == std::errc() && end == text.data() + text.size() && id >= 0,
                   "{}: {} must be a token's id", where, shown(text));
  return id;
}

std::optional<int32_t> find(const BpeSpec& spec, std::string_view text) {
  const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), text);
  if (text.empty() || found == spec.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - spec.tokens.begin());
}

AddedToken* added_with(BpeSpec& spec, int32_t id) {
  for (AddedToken& token : spec.added)
    if (token.id == id) return &token;
  return nullptr;
}

// A token with its id: one of the vocabulary, or the next. validate() refuses a text that is there twice.
void add(BpeSpec& spec, AddedToken token, const std::string& where) {
  const auto at = static_cast<size_t>(token.id);
  check<DataError>(at <= spec.tokens.size(), "{}: token {} has id {}, and {} ends with {}", where,
                   shown(token.text), token.id, spec.name, spec.tokens.size() - 1);
  if (at == spec.tokens.size()) {
    spec.tokens.emplace_back();
    if (!spec.scores.empty()) spec.scores.push_back(0.0F);
  }
  std::string& there = spec.tokens[at];
  check<DataError>(there.empty() || there == token.text, "{}: id {} is {}, and in {} it is {}", where,
                   token.id, shown(token.text), spec.name, shown(there));
  there = token.text;
  spec.added.push_back(std::move(token));
}

}  // namespace

Companions::Companions(const Path& directory)
    : directory_(directory),
      config_(read_object(directory / kConfig)),
      map_(read_object(directory / kMap)),
      added_(read_object(directory / kAdded)) {
  if (!config_.contains(kDecoder)) return;
  map_ = added_ = Json::object();
}

std::string Companions::tokenizer_class() const {
  const std::string source = (directory_ / kConfig).string();
  const formats::Said said = said_in(config_, "tokenizer_class", source);
  if (said.something()) {
    std::string name = formats::json_text(config_, "tokenizer_class", source);
    if (name.ends_with("Fast")) name.resize(name.size() - 4);
    return name;
  }
  const Path path = directory_ / "config.json";
  const Json model = read_object(path);
  if (!said_in(model, "model_type", source).something()) return "";
  const std::string type = formats::json_text(model, "model_type", path.string());
  if (type == "gpt2") return "GPT2Tokenizer";
  return type == "qwen2" || type == "qwen3" ? "Qwen2Tokenizer" : fmt::format("of a {} model", type);
}

std::optional<bool> Companions::flag(const char* key) const {
  const formats::Said said = said_in(config_, key, (directory_ / kConfig).string());
  if (!said.something()) return std::nullopt;
  check<DataError>(said.value->is_boolean(), "{} must be true or false, got {}", said.where,
                   shown(said.value->dump(-1, ' ', true)));
  return said.value->get<bool>();
}

Json Companions::named(const std::string& key, std::string& where) const {
  const formats::Said said = formats::first_said({said_in(map_, key, (directory_ / kMap).string()),
                                                  said_in(config_, key, (directory_ / kConfig).string())});
  where = said.where;
  return said.something() ? *said.value : Json();
}

void Companions::apply(BpeSpec& spec, bool framed) const {
  add_tokens(spec);
  name_tokens(spec);
  std::sort(spec.added.begin(), spec.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  add_templates(spec);
  if (!framed) add_frame(spec);
}

void Companions::add_tokens(BpeSpec& spec) const {
  const std::string config = (directory_ / kConfig).string() + ": " + kDecoder,
                    added = (directory_ / kAdded).string();
  std::set<std::string> special;  // what some key names
  for (const Json* file : {&config_, &map_})
    for (const auto& [key, value] : file->items())
      if (key.ends_with("_token") && names_token(value)) special.insert(described(value, true, config).text);
  std::vector<AddedToken> tokens;
  if (const formats::Said said = said_in(config_, kDecoder, config); said.something()) {
    check<DataError>(said.value->is_object(), "{}: must be an object of ids and tokens", config);
    for (const auto& [id, token] : said.value->items()) {
      tokens.push_back(described(token, false, config + ": " + shown(id)));
      tokens.back().id = id_in(id, config);
      tokens.back().special |= special.contains(tokens.back().text);
    }
  }
  for (const auto& [text, id] : added_.items()) {
    check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX,
                     "{}: the id of {} must be an integer of 31 bits", added, shown(text));
    const bool is_special = special.contains(text);
    tokens.push_back(
        {.id = id.get<int32_t>(), .text = text, .special = is_special, .normalized = !is_special});
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::map<int32_t, size_t> known;
  for (size_t i = 0; i < spec.added.size(); ++i) known[spec.added[i].id] = i;
  for (AddedToken& token : tokens) {
    const auto place = known.find(token.id);
    if (place == known.end() || spec.added[place->second].text != token.text)
      add(spec, std::move(token), added_.empty() ? config : added);
    else
      spec.added[place->second] = std::move(token);  // its flags count, as for transformers
  }
}

void Companions::name_tokens(BpeSpec& spec) const {
  std::string where;
  // The id of a token that a file names, which then is cut out of a text whole; the next one where it has none.
  const auto id_of = [&](const Json& value) {
    AddedToken token = described(value, true, where);
    const auto id = find(spec, token.text);
    token.id = id.value_or(static_cast<int32_t>(spec.tokens.size()));
    const int32_t out = token.id;
    if (added_with(spec, out) == nullptr) add(spec, std::move(token), where);
    return out;
  };
  const std::vector<std::string> names = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};
  for (const std::string& key : names) {
    const Json value = named(key, where);
    if (!names_token(value)) continue;
    const int32_t id = id_of(value);
    if (key == "bos_token") spec.begin = id;
    if (key == "eos_token") spec.end = id;
    if (key == "pad_token") spec.pad = id;
    if (key != "bos_token" && key != "eos_token" && key != "pad_token")
      spec.special[key] = spec.tokens[static_cast<size_t>(id)];
  }
  for (const Json* file : {&map_, &config_})  // names of a family's own, such as image_token
    for (const auto& [key, value] : file->items())
      if (key.ends_with("_token") && names_token(value) && std::ranges::count(names, key) == 0) {
        where = fmt::format("{}: {}", (directory_ / (file == &map_ ? kMap : kConfig)).string(), shown(key));
        id_of(value);
      }
  for (const std::string key : {"additional_special_tokens", "extra_special_tokens"}) {
    const Json values = named(key, where);  // a list, or an object of names and tokens
    if (!values.is_structured()) continue;
    for (const Json& value : values)
      if (names_token(value)) {
        const int32_t id = id_of(value);
        if (values.is_array())
          spec.special["additional_special_tokens"].push_back(spec.tokens[static_cast<size_t>(id)]);
      }
  }
}

void Companions::add_templates(BpeSpec& spec) const {
  for (auto& [name, text] : folder_templates(directory_))
    if (name == "default")
      spec.chat_template = std::move(text);
    else
      spec.chat_templates[name] = std::move(text);
}

void Companions::add_frame(BpeSpec& spec) const {
  const auto begins = flag("add_bos_token"), ends = flag("add_eos_token");
  if (!begins && !ends) return;
  TextFrame frame = frame_of(spec);
  const auto put = [](std::optional<bool> wanted, std::optional<int32_t> id, std::vector<int32_t>& ids) {
    if (!wanted) return;
    ids.clear();
    if (*wanted && id) ids.push_back(*id);
  };
  put(begins, spec.begin, frame.before);
  put(ends, spec.end, frame.after);
  spec.post_processor = template_of(spec, frame);
}

}  // namespace retort::data
