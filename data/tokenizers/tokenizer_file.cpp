#include "data/tokenizers/tokenizer_file.h"

#include <algorithm>

namespace retort::data {
namespace {

namespace fs = std::filesystem;

bool has(const Path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

Path file_of_pair(const Path& folder) {
  for (const auto& [vocabulary, merges] : kFilePairs)
    if (has(folder / vocabulary) && has(folder / merges)) return folder / vocabulary;
  return {};
}

}  // namespace

bool is_of_pair(const Path& file) {
  return std::ranges::any_of(kFilePairs, [name = file.filename()](const FilePair& pair) {
    return name == pair.vocabulary || name == pair.merges;
  });
}

Path tokenizer_file(const Path& path) {
  if (has(path)) {
    const bool whole = path.filename() == "tokenizer.json" || path.extension() == ".model" ||
                       path.extension() == ".tiktoken";
    return whole || (is_of_pair(path) && !file_of_pair(path.parent_path()).empty()) ? path : Path();
  }
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (has(path / name)) return path / name;
  return file_of_pair(path);
}

}  // namespace retort::data
