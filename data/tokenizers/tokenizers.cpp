// The table of named tokenizers, and the formats of tokenizer files, told apart by what they hold, and by their names
// where that is broken, so that an error is of the format that was meant.
#include "core/error.h"
#include "core/registry.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/companions.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/sentencepiece.h"
#include "data/tokenizers/tiktoken.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_file.h"
#include "data/tokenizers/tokenizer_json.h"
#include "formats/file_mark.h"

namespace retort::data {
namespace {

namespace fs = std::filesystem;

struct TokenizerSpec {
  std::string name;
  std::unique_ptr<Tokenizer> (*make)();
};

const Registry<TokenizerSpec>& tokenizers() {
  static const Registry<TokenizerSpec> table(
      "tokenizer", {{"bytes", make_byte_tokenizer}, {"bytes+stop", make_stop_byte_tokenizer}});
  return table;
}

std::string head(const Path& path) {  // enough to know a file by
  MappedFile::open(path);             // IoError
  return formats::first_bytes(path, 4096);
}

BpeSpec with(const Companions& beside, BpeSpec spec) {
  beside.apply(spec, /*framed=*/false);
  guess_ends(spec);
  return spec;
}

void prefix_space(BpeSpec& spec, const Path& directory) {
  const auto found = spec.pre_tokenizer.find("add_prefix_space");
  check<DataError>(found != spec.pre_tokenizer.end(),
                   "{}: add_prefix_space is not supported with this tokenizer_class", directory.string());
  *found = true;
}

// The name of what cuts text before a byte-level vocabulary of this class (companions.h). A pair of files does
// not hold it.
std::string pre_of(const std::string& tokenizer_class, const Path& directory) {
  if (tokenizer_class.empty() || tokenizer_class == "GPT2Tokenizer") return "gpt-2";
  if (tokenizer_class == "Qwen2Tokenizer") return "qwen2";
  fail<DataError>(
      "{}: its tokenizer_class {} has rules of its own, which vocab.json and merges.txt do not hold (known: "
      "GPT2Tokenizer, Qwen2Tokenizer); save it with a tokenizer.json (transformers: "
      "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR))",
      directory.string(), tokenizer_class);
}

// A pair of vocabulary and merges under either of its names, if the directory has it.
std::optional<BpeSpec> read_pair(const Path& directory) {
  for (const auto& [vocabulary, merges] : kFilePairs) {
    if (!fs::exists(directory / vocabulary) || !fs::exists(directory / merges)) continue;
    const Companions beside(directory);
    BpeSpec spec = read_gpt2_pair(directory / vocabulary, directory / merges,
                                  pre_of(beside.tokenizer_class(), directory));
    if (beside.adds_prefix_space()) prefix_space(spec, directory);
    return with(beside, std::move(spec));
  }
  return std::nullopt;
}

BpeSpec read_file(const Path& path) {
  const std::string start = head(path), ending = path.extension().string();
  check<DataError>(!start.empty(), "{}: is empty, and no tokenizer", path.string());
  if (start.starts_with("GGUF")) return read_gguf_vocabulary(formats::GgufFile(path));
  if (is_of_pair(path)) {
    auto pair = read_pair(path.parent_path());
    check<DataError>(pair.has_value(), "{}: vocab.json wants merges.txt beside it, encoder.json vocab.bpe",
                     path.string());
    return std::move(*pair);
  }
  const size_t first = start.find_first_not_of(" \t\r\n");
  if (ending == ".json" || (first != start.npos && start[first] == '{')) return read_tokenizer_json(path);
  const Companions beside(path.parent_path());
  if (ending == ".tiktoken" || looks_like_tiktoken(start)) return with(beside, read_tiktoken(path));
  return with(beside, spec_of(read_sentencepiece(path)));
}

BpeSpec read_directory(const Path& path) {
  const Path file = tokenizer_file(path);
  check<DataError>(
      !file.empty(),
      "{}: holds no tokenizer: no tokenizer.json, tokenizer.model, vocab.json with merges.txt, or "
      "encoder.json with vocab.bpe",
      path.string());
  return read_file(file);
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const Path& path) {
  return make_bpe_tokenizer(fs::is_directory(path) ? read_directory(path) : read_file(path));
}

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view address) {
  if (tokenizers().find(address) == nullptr && fs::exists(Path(address))) return open_tokenizer(address);
  if (tokenizers().find(address) == nullptr && address.find_first_of("/.") != address.npos)
    fail<IoError>("{}: no such tokenizer file or folder", address);
  return tokenizers().at(address).make();
}

std::map<std::string, std::string> tokenizer_files(const Tokenizer& tokenizer) {
  if (tokenizers().find(tokenizer.name()) != nullptr) return {};
  return tokenizer.hf_files();
}

std::unique_ptr<Tokenizer> copied_tokenizer(const std::string& name, const Path& directory) {
  const TokenizerSpec* named = tokenizers().find(name);
  return named != nullptr ? named->make() : open_tokenizer(directory / "tokenizer.json");
}

}  // namespace retort::data
