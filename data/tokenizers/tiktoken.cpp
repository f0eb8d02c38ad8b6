#include "data/tokenizers/tiktoken.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/splitter.h"
#include "data/tokenizers/tokenizer_json.h"
#include "formats/json.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::Json;
using formats::shown;

struct Encoding {
  std::string name;
  size_t ranks;
  int cl100k_digits;  // 0: GPT-2's pattern
  bool composes;
  std::vector<std::pair<int32_t, std::string>> special;  // the first is put between documents
  int32_t begin;                                         // or -1
};

std::vector<std::pair<int32_t, std::string>> llama3_special() {
  constexpr int32_t kFirst = 128000, kCount = 256;
  std::vector<std::pair<int32_t, std::string>> out = {{kFirst + 1, "<|end_of_text|>"},
                                                      {kFirst, "<|begin_of_text|>"},
                                                      {kFirst + 4, "<|finetune_right_pad_id|>"},
                                                      {kFirst + 6, "<|start_header_id|>"},
                                                      {kFirst + 7, "<|end_header_id|>"},
                                                      {kFirst + 8, "<|eom_id|>"},
                                                      {kFirst + 9, "<|eot_id|>"},
                                                      {kFirst + 10, "<|python_tag|>"}};
  int32_t reserved = 0;
  for (int32_t id = kFirst; id < kFirst + kCount; ++id)
    if (std::none_of(out.begin(), out.end(), [&](const auto& token) { return token.first == id; }))
      out.emplace_back(id, fmt::format("<|reserved_special_token_{}|>", reserved++));
  return out;
}

const std::vector<Encoding>& encodings() {
  static const std::vector<Encoding> table = {
      {"r50k_base", 50256, 0, false, {{50256, "<|endoftext|>"}}, -1},
      {"cl100k_base",
       100256,
       3,
       false,
       {{100257, "<|endoftext|>"},
        {100258, "<|fim_prefix|>"},
        {100259, "<|fim_middle|>"},
        {100260, "<|fim_suffix|>"},
        {100276, "<|endofprompt|>"}},
       -1},
      {"llama3", 128000, 3, false, llama3_special(), 128000},
      {"qwen",
       151643,
       1,
       true,
       {{151643, "<|endoftext|>"}, {151644, "<|im_start|>"}, {151645, "<|im_end|>"}},
       -1}};
  return table;
}

std::string from_base64(std::string_view text, const std::string& where) {
  static constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  check<DataError>(!text.empty() && text.size() % 4 == 0, "{}: a token must be in base64, got {}", where,
                   shown(text));
  text.remove_suffix(padding);
  std::string out;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const size_t value = kAlphabet.find(c);
    check<DataError>(value != kAlphabet.npos, "{}: a token must be in base64, got {}", where, shown(text));
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) out += static_cast<char>(bits >> (held -= 8) & 0xFF);
  }
  return out;
}

int64_t to_rank(std::string_view text, int64_t limit, const std::string& where) {
  int64_t rank = -1;
  for (const char c : text) {
    check<DataError>(c >= '0' && c <= '9' && rank < limit, "{}: a rank must lie in 0 .. {}, got {}", where,
                     limit - 1, shown(text));
    rank = std::max<int64_t>(rank, 0) * 10 + (c - '0');
  }
  check<DataError>(rank >= 0 && rank < limit, "{}: a rank must lie in 0 .. {}, got {}", where, limit - 1,
                   shown(text));
  return rank;
}

// Calls `line(text, number)` for each line that is not empty.
template <class Line>
void for_each_line(std::string_view text, const Line& line) {
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view one = text.substr(0, end);
    if (one.ends_with('\r')) one.remove_suffix(1);
    ++number;
    if (!one.empty()) line(one, number);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// A whole piece that is a token is one, merges or not. The file says so only where some token needs it.
bool every_token_is_merged(const std::vector<std::string>& bytes, const std::vector<Merge>& merges) {
  std::array<int32_t, 256> single{};
  for (size_t id = 0; id < bytes.size(); ++id)
    if (bytes[id].size() == 1) single[static_cast<unsigned char>(bytes[id][0])] = static_cast<int32_t>(id);
  const BpeMerges rules(merges);
  BpeMerges::Scratch scratch;
  for (size_t id = 0; id < bytes.size(); ++id) {
    std::vector<int32_t> symbols;
    for (const char c : bytes[id]) symbols.push_back(single[static_cast<unsigned char>(c)]);
    rules.merge(symbols, scratch);
    if (!bytes[id].empty() && (symbols.size() != 1 || symbols[0] != static_cast<int32_t>(id))) return false;
  }
  return true;
}

Json byte_level(bool pattern) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", pattern}};
}

void add_encoding(BpeSpec& spec, const Encoding& encoding) {
  if (encoding.composes) spec.normalizer = {{"type", "NFC"}};
  if (encoding.cl100k_digits == 0) {
    spec.pre_tokenizer = byte_level(true);
  } else {
    const Json split = {{"type", "Split"},
                        {"pattern", {{"Regex", cl100k_pattern(encoding.cl100k_digits)}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    spec.pre_tokenizer = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}};
  }
  for (const auto& [id, text] : encoding.special) {
    if (static_cast<size_t>(id) >= spec.tokens.size()) spec.tokens.resize(static_cast<size_t>(id) + 1);
    spec.tokens[static_cast<size_t>(id)] = text;
    spec.added.push_back({.id = id, .text = text, .special = true});
  }
  std::sort(spec.added.begin(), spec.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  spec.end = encoding.special.front().first;
  if (encoding.begin >= 0) spec.begin = encoding.begin;
  if (spec.begin) spec.post_processor = template_of(spec, {{*spec.begin}, {}});
}

}  // namespace

bool looks_like_tiktoken(std::string_view text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  const size_t space = line.find(' ');
  return space != line.npos && space > 0 && space % 4 == 0 && space + 1 < line.size() &&
         line.find_first_not_of("0123456789\r", space + 1) == line.npos;
}

BpeSpec read_tiktoken(const Path& path) {
  const std::string source = path.string(), text = read_text(path);
  const auto lines = std::count(text.begin(), text.end(), '\n') + 1;
  std::vector<std::string> bytes;
  size_t ranks = 0;
  for_each_line(text, [&](std::string_view line, int64_t number) {
    const std::string where = fmt::format("{}:{}", source, number);
    const size_t space = line.find(' ');
    check<DataError>(space != line.npos, "{}: a line must be a token and its rank, got {}", where,
                     shown(line));
    const auto rank = static_cast<size_t>(to_rank(line.substr(space + 1), 2 * lines, where));
    if (rank >= bytes.size()) bytes.resize(rank + 1);
    check<DataError>(bytes[rank].empty(), "{}: rank {} is there twice", where, rank);
    bytes[rank] = from_base64(line.substr(0, space), where);
    ++ranks;
  });
  std::vector<std::string> known;
  const Encoding* encoding = nullptr;
  for (const Encoding& row : encodings()) {
    known.push_back(fmt::format("{} ({})", row.name, row.ranks));
    if (row.ranks == ranks && bytes.size() == ranks) encoding = &row;
  }
  check<DataError>(encoding != nullptr, "{}: holds {} tokens; how they cut text is known for {}", source,
                   ranks, fmt::join(known, ", "));
  BpeSpec spec;
  spec.name = source;
  std::vector<float> scores(bytes.size());
  for (size_t id = 0; id < bytes.size(); ++id) {
    scores[id] = -static_cast<float>(id);
    spec.tokens.push_back(to_byte_alphabet(bytes[id]));
  }
  spec.merges = merges_of_scores(bytes, scores);
  spec.ignore_merges = !every_token_is_merged(bytes, spec.merges);
  spec.decoder = byte_level(true);
  add_encoding(spec, *encoding);
  return spec;
}

BpeSpec read_gpt2_pair(const Path& vocabulary, const Path& merges, const std::string& pre) {
  const Json ids = formats::read_json(vocabulary);
  const std::string source = vocabulary.string();
  check<DataError>(ids.is_object(), "{}: must be an object of tokens and ids", source);
  BpeSpec spec = byte_level_spec(pre);
  spec.name = source;
  for (const auto& [token, id] : ids.items()) {
    check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<uint64_t>() < 2 * ids.size(),
                     "{}: the id of {} must lie in 0 .. {}", source, shown(token), 2 * ids.size() - 1);
    const auto at = id.get<size_t>();
    if (at >= spec.tokens.size()) spec.tokens.resize(at + 1);
    check<DataError>(spec.tokens[at].empty(), "{}: id {} is both {} and {}", source, at,
                     shown(spec.tokens[at]), shown(token));
    spec.tokens[at] = token;
  }
  const TokenIndex index(spec.tokens);
  const std::string text = read_text(merges);
  for_each_line(text, [&](std::string_view line, int64_t number) {
    if (number == 1 && line.starts_with("#version")) return;
    const std::string where = fmt::format("{}:{}", merges.string(), number);
    const size_t space = line.find(' ');
    check<DataError>(space != line.npos && line.find(' ', space + 1) == line.npos,
                     "{}: a merge must be two tokens with a space between, got {}", where, shown(line));
    add_merge(spec, index, line.substr(0, space), line.substr(space + 1), where);
  });
  if (const auto end = index.find("<|endoftext|>"))
    spec.added.push_back({.id = *end, .text = "<|endoftext|>", .special = true});
  return spec;
}

}  // namespace retort::data
