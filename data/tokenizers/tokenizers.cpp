// The table of named tokenizers, and the formats of tokenizer files, told apart by what they hold.
#include "core/error.h"
#include "core/registry.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/sentencepiece.h"
#include "data/tokenizers/tiktoken.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_json.h"

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
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes().first(std::min<size_t>(file->bytes().size(), 4096));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// GPT-2's pair under either of its names, if the directory has it.
std::optional<BpeSpec> read_pair(const Path& directory) {
  for (const auto& [vocabulary, merges] :
       {std::pair("vocab.json", "merges.txt"), {"encoder.json", "vocab.bpe"}})
    if (fs::exists(directory / vocabulary) && fs::exists(directory / merges))
      return read_gpt2_pair(directory / vocabulary, directory / merges);
  return std::nullopt;
}

BpeSpec read_file(const Path& path) {
  const std::string start = head(path), file = path.filename().string();
  if (start.starts_with("GGUF")) return read_gguf_vocabulary(formats::GgufFile(path));
  if (file == "vocab.json" || file == "merges.txt" || file == "encoder.json" || file == "vocab.bpe") {
    auto pair = read_pair(path.parent_path());
    check<DataError>(pair.has_value(), "{}: vocab.json wants merges.txt beside it, encoder.json vocab.bpe",
                     path.string());
    return std::move(*pair);
  }
  if (const size_t first = start.find_first_not_of(" \t\r\n"); first != start.npos && start[first] == '{')
    return read_tokenizer_json(path);
  if (looks_like_tiktoken(start)) return read_tiktoken(path);
  return spec_of(read_sentencepiece(path));
}

BpeSpec read_directory(const Path& path) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (fs::exists(path / name)) return read_file(path / name);
  if (auto pair = read_pair(path)) return std::move(*pair);
  fail<DataError>(
      "{}: holds no tokenizer: no tokenizer.json, tokenizer.model, vocab.json with merges.txt, or "
      "encoder.json with vocab.bpe",
      path.string());
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
