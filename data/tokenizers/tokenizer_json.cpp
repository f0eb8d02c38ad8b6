#include "data/tokenizers/tokenizer_json.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/companions.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::Json;
using formats::json_integer;
using formats::json_text;
using formats::shown;

const Json& member(const Json& object, const char* key) {  // null when absent
  static const Json none;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() ? *found : none;
}

bool flag(const Json& object, const char* key, const std::string& source) {
  const Json& value = member(object, key);
  check<DataError>(value.is_null() || value.is_boolean(), "{}: key \"{}\" must be true or false, got {}",
                   source, key, value.type_name());
  return value.is_boolean() && value.get<bool>();
}

std::string text_or_none(const Json& object, const char* key, const std::string& source) {
  return member(object, key).is_null() ? std::string() : json_text(object, key, source);
}

void check_model(const Json& model, const std::string& source) {
  check<DataError>(model.is_object(), "{}: must be an object", source);
  const std::string type = model.contains("type")     ? json_text(model, "type", source)
                           : model.contains("merges") ? std::string("BPE")
                                                      : std::string("without a name");
  check<DataError>(type == "BPE", "{}: type must be BPE, got {}, which is not supported", source,
                   shown(type));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    check<DataError>(text_or_none(model, key, source).empty(), "{}: {} is not supported, got {}", source, key,
                     shown(text_or_none(model, key, source)));
  const Json& dropout = member(model, "dropout");
  check<DataError>(dropout.is_null() || dropout == Json(0.0), "{}: dropout is not supported", source);
}

void place(BpeSpec& spec, const std::string& token, int64_t id, size_t limit, const std::string& source) {
  check<DataError>(id >= 0 && static_cast<uint64_t>(id) < limit,
                   "{}: the id of {} must lie in 0 .. {}, got {}", source, shown(token), limit - 1, id);
  if (static_cast<size_t>(id) >= spec.tokens.size()) spec.tokens.resize(static_cast<size_t>(id) + 1);
  std::string& there = spec.tokens[static_cast<size_t>(id)];
  check<DataError>(there.empty() || there == token, "{}: id {} is both {} and {}", source, id, shown(there),
                   shown(token));
  there = token;
}

void read_tokens(BpeSpec& spec, const Json& root, const std::string& source) {
  const Json& vocab = member(root.at("model"), "vocab");
  check<DataError>(vocab.is_object(), "{}: model.vocab must be an object", source);
  const Json& added = member(root, "added_tokens");
  check<DataError>(added.is_null() || added.is_array(), "{}: added_tokens must be a list", source);
  const size_t limit = 2 * (vocab.size() + added.size());
  for (const auto& [token, id] : vocab.items()) {
    check<DataError>(id.is_number_integer() && (!id.is_number_unsigned() || id.get<uint64_t>() < limit),
                     "{}: model.vocab: the id of {} must be an integer below {}, got {}", source,
                     shown(token), limit, shown(id.dump(-1, ' ', true)));
    place(spec, token, id.get<int64_t>(), limit, source);
  }
  for (const Json& token : added) {
    const std::string where = source + ": added_tokens";
    AddedToken out;
    out.text = json_text(token, "content", where);
    place(spec, out.text, json_integer(token, "id", where), limit, where);
    out.id = token.at("id").get<int32_t>();
    out.special = flag(token, "special", where);
    out.single_word = flag(token, "single_word", where);
    out.lstrip = flag(token, "lstrip", where);
    out.rstrip = flag(token, "rstrip", where);
    out.normalized = flag(token, "normalized", where);
    spec.added.push_back(std::move(out));
  }
  std::sort(spec.added.begin(), spec.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

void read_merges(BpeSpec& spec, const Json& merges, const TokenIndex& index, const std::string& source) {
  check<DataError>(merges.is_array(), "{}: merges must be a list", source);
  spec.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    if (merge.is_array()) {
      check<DataError>(merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
                       "{}: a merge must be of two tokens, got {}", source, shown(merge.dump(-1, ' ', true)));
      add_merge(spec, index, merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(),
                source);
      continue;
    }
    check<DataError>(merge.is_string(), "{}: a merge must be \"a b\" or a list, got {}", source,
                     merge.type_name());
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    check<DataError>(space != text.npos && text.find(' ', space + 1) == text.npos,
                     "{}: a merge must be two tokens with a space between, got {}", source, shown(text));
    add_merge(spec, index, text.substr(0, space), text.substr(space + 1), source);
  }
}

std::string quoted(const std::string& text) { return Json(text).dump(); }

// One entry a line; the library's own objects would look through all earlier keys for each.
std::string print_vocabulary(const BpeSpec& spec) {
  std::string out;
  for (size_t id = 0; id < spec.tokens.size(); ++id)
    if (!spec.tokens[id].empty())
      out += fmt::format("{}\n   {}: {}", out.empty() ? "" : ",", quoted(spec.tokens[id]), id);
  return out;
}

std::string print_merges(const BpeSpec& spec) {
  const auto token = [&](int32_t id) -> const std::string& { return spec.tokens[static_cast<size_t>(id)]; };
  const bool plain = std::none_of(spec.merges.begin(), spec.merges.end(), [&](const Merge& m) {
    return token(m.joined).find(' ') != std::string::npos;
  });
  std::string out;
  for (const Merge& merge : spec.merges) {
    const std::string &left = token(merge.left), &right = token(merge.right);
    out += fmt::format(
        "{}\n   {}", out.empty() ? "" : ",",
        plain ? quoted(left + " " + right) : fmt::format("[{}, {}]", quoted(left), quoted(right)));
  }
  return out;
}

// One is a text, several are a list of names and texts.
Json chat_templates_of(const BpeSpec& spec) {
  if (spec.chat_templates.empty()) return spec.chat_template.empty() ? Json() : Json(spec.chat_template);
  Json out = Json::array();
  if (!spec.chat_template.empty()) out.push_back({{"name", "default"}, {"template", spec.chat_template}});
  for (const auto& [name, text] : spec.chat_templates) out.push_back({{"name", name}, {"template", text}});
  return out;
}

Json print_added(const BpeSpec& spec) {
  Json out = Json::array();
  for (const AddedToken& token : spec.added)
    out.push_back({{"id", token.id},
                   {"content", token.text},
                   {"single_word", token.single_word},
                   {"lstrip", token.lstrip},
                   {"rstrip", token.rstrip},
                   {"normalized", token.normalized},
                   {"special", token.special}});
  return out;
}

}  // namespace

BpeSpec read_tokenizer_json(const Path& path) {
  const std::string source = path.string();
  const Json root = formats::read_json(path);
  check<DataError>(root.is_object() && root.contains("model"), "{}: must be an object with key \"model\"",
                   source);
  const Json& model = root.at("model");
  check_model(model, source + ": model");
  BpeSpec spec;
  spec.name = source;
  read_tokens(spec, root, source);
  const TokenIndex index(spec.tokens);
  read_merges(spec, member(model, "merges"), index, source + ": model");
  if (const std::string unknown = text_or_none(model, "unk_token", source); !unknown.empty()) {
    spec.unknown = index.find(unknown);
    check<DataError>(spec.unknown.has_value(), "{}: unk_token {} is not in the vocabulary", source,
                     shown(unknown));
  }
  spec.fuse_unknown = flag(model, "fuse_unk", source);
  spec.byte_fallback = flag(model, "byte_fallback", source);
  spec.ignore_merges = flag(model, "ignore_merges", source);
  spec.normalizer = member(root, "normalizer");
  spec.pre_tokenizer = member(root, "pre_tokenizer");
  spec.post_processor = member(root, "post_processor");
  spec.decoder = member(root, "decoder");
  Companions(path.parent_path()).apply(spec, /*framed=*/true);
  guess_ends(spec);
  return spec;
}

void guess_ends(BpeSpec& spec) {
  const auto guess = [&](std::optional<int32_t>& id, std::initializer_list<const char*> names) {
    for (const char* name : names)
      for (const AddedToken& token : spec.added)
        if (!id && token.special && token.text == name) id = token.id;
  };
  guess(spec.end, {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"});
  guess(spec.begin, {"<s>", "<|begin_of_text|>", "<bos>"});
}

Json template_of(const BpeSpec& spec, const TextFrame& frame) {
  if (frame.before.empty() && frame.after.empty()) return nullptr;
  Json special = Json::object();
  const auto tokens = [&](const std::vector<int32_t>& ids, int type) {
    Json out = Json::array();
    for (const int32_t id : ids) {
      const std::string& text = spec.tokens.at(static_cast<size_t>(id));
      special[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
      out.push_back({{"SpecialToken", {{"id", text}, {"type_id", type}}}});
    }
    return out;
  };
  const auto framed = [&](const char* name, int type) {
    Json out = tokens(frame.before, type);
    out.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    for (Json& token : tokens(frame.after, type)) out.push_back(std::move(token));
    return out;
  };
  const Json single = framed("A", 0);
  Json pair = single;
  for (Json& part : framed("B", 1)) pair.push_back(std::move(part));
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

std::map<std::string, std::string> to_hf_files(const BpeSpec& spec) {
  const auto text = [&](std::optional<int32_t> id) {
    return id ? Json(spec.tokens[static_cast<size_t>(*id)]) : Json();
  };
  const std::string tokenizer = fmt::format(
      "{{\n \"version\": \"1.0\",\n \"truncation\": null,\n \"padding\": null,\n \"added_tokens\": {},\n"
      " \"normalizer\": {},\n \"pre_tokenizer\": {},\n \"post_processor\": {},\n \"decoder\": {},\n"
      " \"model\": {{\n  \"type\": \"BPE\",\n  \"dropout\": null,\n  \"unk_token\": {},\n"
      "  \"continuing_subword_prefix\": null,\n  \"end_of_word_suffix\": null,\n  \"fuse_unk\": {},\n"
      "  \"byte_fallback\": {},\n  \"ignore_merges\": {},\n  \"vocab\": {{{}\n  }},\n  \"merges\": [{}\n  "
      "]\n }}\n}}\n",
      print_added(spec).dump(), spec.normalizer.dump(), spec.pre_tokenizer.dump(), spec.post_processor.dump(),
      spec.decoder.dump(), text(spec.unknown).dump(), spec.fuse_unknown, spec.byte_fallback,
      spec.ignore_merges, print_vocabulary(spec), print_merges(spec));
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto put = [&](const char* key, std::optional<int32_t> id) {
    if (id) config[key] = text(id);
  };
  put("bos_token", spec.begin);
  put("eos_token", spec.end);
  put("unk_token", spec.unknown);
  put("pad_token", spec.pad);
  for (const auto& [key, value] : spec.special.items())
    if (!config.contains(key)) config[key] = value;
  if (const Json templates = chat_templates_of(spec); !templates.is_null())
    config["chat_template"] = templates;
  return {{"tokenizer.json", tokenizer}, {"tokenizer_config.json", config.dump(1) + "\n"}};
}

}  // namespace retort::data
