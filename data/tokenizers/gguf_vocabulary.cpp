#include "data/tokenizers/gguf_vocabulary.h"

#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "core/registry.h"
#include "data/templates/store.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/sentencepiece.h"
#include "data/tokenizers/token_decoder.h"
#include "data/tokenizers/tokenizer_json.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::GgufFile;
using formats::GgufMetadata;
using formats::GgufValue;
using formats::Json;
using formats::shown;

// tokenizer.ggml.token_type, for both models
enum TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

constexpr const char* kTemplates = "tokenizer.chat_templates";  // their names
constexpr std::pair<const char*, const char*> kRoles[] = {{"sep_token", "tokenizer.ggml.seperator_token_id"},
                                                          {"cls_token", "tokenizer.ggml.cls_token_id"},
                                                          {"mask_token", "tokenizer.ggml.mask_token_id"}};

struct PreRow {
  std::string name;
  Json pre_tokenizer;
  bool composes, ignores_merges;
};

Json byte_level(bool pattern) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", pattern}};
}
Json sequence(Json first, Json second) {
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({std::move(first), std::move(second)})}};
}
Json cl100k(int digits) {
  return sequence({{"type", "Split"},
                   {"pattern", {{"Regex", cl100k_pattern(digits)}}},
                   {"behavior", "Isolated"},
                   {"invert", false}},
                  byte_level(false));
}

const Registry<PreRow>& pre_rows() {
  static const Registry<PreRow> table(
      "tokenizer.ggml.pre",
      {{"gpt-2", byte_level(true), false, false},
       {"llama-bpe", cl100k(3), false, true},
       {"dbrx", cl100k(3), false, false},
       {"qwen2", cl100k(1), true, false},
       {"smollm", sequence({{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)), false,
        false}});
  return table;
}

// A template's name as gguf-py writes it.
std::string plain(std::string name) {
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}

template <class T>
const T& list(const GgufFile& file, const char* key, size_t size) {
  const formats::GgufValue* value = file.find(key);
  const T* out = value == nullptr ? nullptr : std::get_if<T>(value);
  check<DataError>(out != nullptr, "{}: key {} must be there, and a list of the right kind",
                   file.path().string(), key);
  check<DataError>(size == 0 || out->size() == size, "{}: key {} must have {} elements, got {}",
                   file.path().string(), key, size, out->size());
  return *out;
}

std::optional<int32_t> token_id(const GgufFile& file, const char* key) {
  const int64_t id = file.integer(key, -1);
  if (id == UINT32_MAX) return std::nullopt;  // -1 where the writer meant none
  check<DataError>(id >= -1 && id <= INT32_MAX, "{}: key {} must be a token's id, got {}",
                   file.path().string(), key, id);
  return id < 0 ? std::nullopt : std::optional(static_cast<int32_t>(id));
}

bool flag(const GgufFile& file, const char* key, bool absent) {
  const formats::GgufValue* value = file.find(key);
  if (value == nullptr) return absent;
  const bool* out = std::get_if<bool>(value);
  check<DataError>(out != nullptr, "{}: key {} must be a bool", file.path().string(), key);
  return *out;
}

// Rows of an embedding that no token has stand at the end.
void drop_padding(std::vector<std::string>& tokens) {
  while (!tokens.empty() && tokens.back().empty()) tokens.pop_back();
}

BpeSpec read_llama(const GgufFile& file, const std::vector<std::string>& tokens) {
  SentencePieces pieces;
  pieces.name = file.path().string();
  pieces.texts = tokens;
  pieces.scores = list<std::vector<float>>(file, "tokenizer.ggml.scores", tokens.size());
  for (const int32_t type : list<std::vector<int32_t>>(file, "tokenizer.ggml.token_type", tokens.size())) {
    check<DataError>(type >= kNormal && type <= kByte, "{}: a token's type must lie in 1 .. 6, got {}",
                     pieces.name, type);
    pieces.types.push_back(static_cast<PieceType>(type));
    if (type == kUnused) pieces.texts[pieces.types.size() - 1].clear();
  }
  drop_padding(pieces.texts);
  pieces.scores.resize(pieces.texts.size());
  pieces.types.resize(pieces.texts.size());
  pieces.begin = token_id(file, "tokenizer.ggml.bos_token_id");
  pieces.end = token_id(file, "tokenizer.ggml.eos_token_id");
  pieces.pad = token_id(file, "tokenizer.ggml.padding_token_id");
  pieces.add_space_prefix = flag(file, "tokenizer.ggml.add_space_prefix", true);
  pieces.add_begin = flag(file, "tokenizer.ggml.add_bos_token", true);
  pieces.add_end = flag(file, "tokenizer.ggml.add_eos_token", false);
  return spec_of(std::move(pieces));
}

BpeSpec read_gpt2(const GgufFile& file, const std::vector<std::string>& tokens) {
  const std::string source = file.path().string();
  const std::string pre_name = file.text("tokenizer.ggml.pre", "default");
  check<DataError>(pre_rows().find(pre_name) != nullptr, "{}: tokenizer.ggml.pre must be one of {}, got {}{}",
                   source, fmt::join(pre_rows().names(), ", "), shown(pre_name),
                   did_you_mean(pre_name, pre_rows().names()));
  BpeSpec spec = byte_level_spec(pre_name);
  spec.name = source;
  spec.tokens = tokens;
  const auto& types = list<std::vector<int32_t>>(file, "tokenizer.ggml.token_type", tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] == kUnused) spec.tokens[id].clear();
    if (types[id] == kControl || types[id] == kUserDefined)
      spec.added.push_back(
          {.id = static_cast<int32_t>(id), .text = tokens[id], .special = types[id] == kControl});
  }
  drop_padding(spec.tokens);
  const TokenIndex index(spec.tokens);
  for (const std::string& merge : list<std::vector<std::string>>(file, "tokenizer.ggml.merges", 0)) {
    const size_t space = merge.find(' ', 1);
    check<DataError>(space != merge.npos, "{}: a merge must be two tokens with a space between, got {}",
                     source, shown(merge));
    const std::string_view left = std::string_view(merge).substr(0, space);
    const std::string_view right = std::string_view(merge).substr(space + 1);
    // llama.cpp wants a merge even of a vocabulary of bytes; one that makes nothing is none.
    if (index.find(std::string(left) + std::string(right))) add_merge(spec, index, left, right, source);
  }
  spec.begin = token_id(file, "tokenizer.ggml.bos_token_id");
  spec.end = token_id(file, "tokenizer.ggml.eos_token_id");
  spec.pad = token_id(file, "tokenizer.ggml.padding_token_id");
  validate(spec);
  TextFrame frame;
  if (flag(file, "tokenizer.ggml.add_bos_token", spec.ignore_merges) && spec.begin)
    frame.before.push_back(*spec.begin);
  if (flag(file, "tokenizer.ggml.add_eos_token", false) && spec.end) frame.after.push_back(*spec.end);
  spec.post_processor = template_of(spec, frame);
  return spec;
}

std::vector<float> scores_of_merges(const BpeSpec& spec) {
  std::vector<float> out(spec.tokens.size(), -static_cast<float>(spec.merges.size()));
  for (size_t rank = spec.merges.size(); rank-- > 0;)
    out[static_cast<size_t>(spec.merges[rank].joined)] = -static_cast<float>(rank);
  return out;
}

std::vector<int32_t> token_types(const BpeSpec& spec, bool bytes) {
  std::vector<int32_t> out(spec.tokens.size(), kNormal);
  for (size_t id = 0; id < out.size(); ++id) {
    if (spec.tokens[id].empty()) out[id] = kUnused;
    if (bytes && byte_of_token(spec.tokens[id])) out[id] = kByte;
  }
  for (const AddedToken& token : spec.added)
    out[static_cast<size_t>(token.id)] = token.special ? kControl : kUserDefined;
  return out;
}

void add_byte_level(GgufMetadata& out, const BpeSpec& spec, const PreTokenizer& pre) {
  const bool composes = Normalizer(spec.normalizer, spec.name).composes();
  std::string name;
  for (const PreRow& row : pre_rows())
    if (name.empty() && PreTokenizer(row.pre_tokenizer, row.name).rule() == pre.rule() &&
        (row.composes || !composes) && row.ignores_merges == spec.ignore_merges)
      name = row.name;
  check<DataError>(!name.empty(), "{}: a GGUF names its pre-tokenizer, and this one is none of {}", spec.name,
                   fmt::join(pre_rows().names(), ", "));
  out.emplace_back("tokenizer.ggml.model", std::string("gpt2"));
  out.emplace_back("tokenizer.ggml.pre", name);
  std::vector<std::string> merges;
  for (const Merge& m : spec.merges)
    merges.push_back(spec.tokens[static_cast<size_t>(m.left)] + " " +
                     spec.tokens[static_cast<size_t>(m.right)]);
  if (merges.empty()) merges.push_back("q z");  // none is refused; the reader splits what it does not know
  out.emplace_back("tokenizer.ggml.merges", std::move(merges));
  out.emplace_back("tokenizer.ggml.token_type", token_types(spec, false));
}

void add_characters(GgufMetadata& out, const BpeSpec& spec, const PreTokenizer& pre) {
  const std::string probe = Normalizer(spec.normalizer, spec.name).apply("a");
  std::vector<int32_t> types = token_types(spec, true);
  if (spec.unknown) types[static_cast<size_t>(*spec.unknown)] = kUnknown;
  out.emplace_back("tokenizer.ggml.model", std::string("llama"));
  out.emplace_back("tokenizer.ggml.pre", std::string("default"));
  out.emplace_back("tokenizer.ggml.scores", spec.scores.empty() ? scores_of_merges(spec) : spec.scores);
  out.emplace_back("tokenizer.ggml.token_type", std::move(types));
  out.emplace_back("tokenizer.ggml.add_space_prefix", probe != "a" || pre.prepends());
}

}  // namespace

BpeSpec byte_level_spec(const std::string& pre) {
  const PreRow& row = pre_rows().at(pre);
  BpeSpec spec;
  spec.pre_tokenizer = row.pre_tokenizer;
  spec.ignore_merges = row.ignores_merges;
  if (row.composes) spec.normalizer = {{"type", "NFC"}};
  spec.decoder = byte_level(true);
  return spec;
}

std::vector<std::string> byte_level_names() { return pre_rows().names(); }

BpeSpec read_gguf_vocabulary(const GgufFile& file) {
  check<DataError>(file.find("tokenizer.ggml.model") != nullptr || file.integer("split.no", 0) == 0,
                   "{}: is part {} of a split GGUF, whose vocabulary is in the first part",
                   file.path().string(), file.integer("split.no", 0) + 1);
  const std::string model = file.text("tokenizer.ggml.model");
  const auto& tokens = list<std::vector<std::string>>(file, "tokenizer.ggml.tokens", 0);
  check<DataError>(model == "gpt2" || model == "llama",
                   "{}: tokenizer.ggml.model must be gpt2 or llama, got {}, which is not supported",
                   file.path().string(), shown(model));
  BpeSpec spec = model == "llama" ? read_llama(file, tokens) : read_gpt2(file, tokens);
  for (auto& [name, text] : gguf_templates(file))
    (name == "default" ? spec.chat_template : spec.chat_templates[name]) = std::move(text);
  for (const auto& [key, gguf] : kRoles)
    if (const auto id = token_id(file, gguf); id && static_cast<size_t>(*id) < spec.tokens.size())
      spec.special[key] = spec.tokens[static_cast<size_t>(*id)];
  return spec;
}

namespace {

void add_templates(GgufMetadata& out, const BpeSpec& spec) {
  if (!spec.chat_template.empty()) out.emplace_back("tokenizer.chat_template", spec.chat_template);
  std::vector<std::string> names;
  for (const auto& [name, text] : spec.chat_templates) {
    names.push_back(plain(name));
    out.emplace_back("tokenizer.chat_template." + names.back(), text);
  }
  if (!names.empty()) out.emplace_back(kTemplates, std::move(names));
}

}  // namespace

GgufMetadata to_gguf(const BpeSpec& spec) {
  const PreTokenizer pre(spec.pre_tokenizer, spec.name);
  GgufMetadata out;
  if (pre.byte_level())
    add_byte_level(out, spec, pre);
  else
    add_characters(out, spec, pre);
  std::vector<std::string> tokens = spec.tokens;
  for (const AddedToken& token : spec.added)  // llama.cpp looks for them in the raw text
    if (!pre.byte_level() && token.normalized && !token.special)
      tokens[static_cast<size_t>(token.id)] = replaced(token.text, "\xE2\x96\x81", " ");
  for (size_t id = 0; id < tokens.size(); ++id)
    if (tokens[id].empty()) tokens[id] = fmt::format("[PAD{}]", id);
  out.emplace_back("tokenizer.ggml.tokens", std::move(tokens));
  const auto put = [&](const char* key, std::optional<int32_t> id) {
    if (id) out.emplace_back(key, static_cast<uint32_t>(*id));
  };
  put("tokenizer.ggml.bos_token_id", spec.begin ? spec.begin : spec.end);
  put("tokenizer.ggml.eos_token_id", spec.end);
  put("tokenizer.ggml.unknown_token_id", spec.unknown);
  put("tokenizer.ggml.padding_token_id", spec.pad);
  const TextFrame frame = frame_of(spec);
  out.emplace_back("tokenizer.ggml.add_bos_token", !frame.before.empty());
  out.emplace_back("tokenizer.ggml.add_eos_token", !frame.after.empty());
  const TokenIndex index(spec.tokens);
  for (const auto& [key, gguf] : kRoles)
    if (const auto role = spec.special.find(key); role != spec.special.end() && role->is_string())
      put(gguf, index.find(role->get_ref<const std::string&>()));
  add_templates(out, spec);
  return out;
}

GgufMetadata padded(GgufMetadata metadata, int64_t rows) {
  for (auto& [key, value] : metadata) {
    const auto size = static_cast<size_t>(rows);
    if (key == "tokenizer.ggml.tokens") {
      auto& tokens = std::get<std::vector<std::string>>(value);
      while (tokens.size() < size) tokens.push_back(fmt::format("[PAD{}]", tokens.size()));
    } else if (key == "tokenizer.ggml.token_type") {
      auto& types = std::get<std::vector<int32_t>>(value);
      types.resize(std::max(types.size(), size), kUnused);
    } else if (key == "tokenizer.ggml.scores") {
      auto& scores = std::get<std::vector<float>>(value);
      scores.resize(std::max(scores.size(), size), 0.0F);
    }
  }
  return metadata;
}

}  // namespace retort::data
