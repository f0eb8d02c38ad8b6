#include "data/prepare.h"

#include <algorithm>
#include <cmath>

#include "core/digest.h"
#include "core/error.h"
#include "data/token_shards.h"

namespace retort::data {
namespace {

constexpr size_t kPiece =
    size_t{1} << 20;  // bytes encoded at a time, so that memory does not grow with a file

// The first byte at or before `at` that does not continue a UTF-8 character; `at` itself in other encodings.
size_t character_start(std::string_view text, size_t at) {
  for (size_t back = 0; back < 4 && back <= at; ++back)
    if ((static_cast<unsigned char>(text[at - back]) & 0xC0) != 0x80) return at - back;
  return at;
}

// Where the validation share starts: the first line that begins in it, else the line that runs into it, else
// (no line break at all) the share's first character.
size_t split_point(std::string_view text, double validation) {
  const auto share = static_cast<size_t>(std::llround(static_cast<double>(text.size()) * validation));
  if (share == 0) return text.size();
  const size_t target = text.size() - share;
  if (target == 0 || text[target - 1] == '\n') return target;
  const size_t next = text.find('\n', target);
  if (next != std::string_view::npos && next + 1 < text.size()) return next + 1;
  const size_t before = text.rfind('\n', target);
  return before != std::string_view::npos ? before + 1 : character_start(text, target);
}

struct Text {
  std::shared_ptr<const MappedFile> file;
  std::string_view train, validation;
};

Text open_text(const std::string& path, double validation) {
  Text out{MappedFile::open(path), {}, {}};
  const auto bytes = out.file->bytes();
  check<DataError>(!bytes.empty(), "{}: text must hold at least one byte, got an empty file", path);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t split = split_point(text, validation);
  out.train = text.substr(0, split);
  out.validation = text.substr(split);
  return out;
}

// Names the split text whatever the files are called: sizes, contents and where each is cut.
std::string digest_of(const std::vector<Text>& texts) {
  Digest digest;
  for (const Text& text : texts) {
    digest.add(as_bytes(fmt::format("{} {} ", text.train.size(), text.validation.size())));
    digest.add(text.file->bytes());
  }
  return hex(digest.value());
}

size_t piece_end(std::string_view text, size_t begin) {
  if (text.size() - begin <= kPiece) return text.size();
  const size_t line = text.rfind('\n', begin + kPiece - 1);
  return line != std::string_view::npos && line >= begin ? line + 1 : character_start(text, begin + kPiece);
}

struct PartText {
  Path directory;
  std::string source;  // in words, digest included
  std::vector<std::string_view> documents;
  int64_t least_tokens;
};

PreparedPart open_part(const PartText& part, const Tokenizer& tokenizer) {
  const TokenShards shards(part.directory);
  check<DataError>(
      shards.source() == part.source && shards.tokenizer_fingerprint() == tokenizer.fingerprint(),
      "{}: holds other tokens: made from {} ({}), wanted {} ({}); remove it or choose another directory",
      part.directory.string(), shards.source(), shards.tokenizer_name(), part.source, tokenizer.name());
  shards.verify();
  return {part.directory, shards.size(), shards.documents(), shards.text_bytes(), false};
}

void write_part(const PartText& part, const Tokenizer& tokenizer, FileSystem& files, Log& log) {
  int64_t total = 0, done = 0;
  for (const std::string_view document : part.documents) total += static_cast<int64_t>(document.size());
  TokenShardWriter writer(files, part.directory, tokenizer, part.source);
  Progress progress(log, "prepare " + part.directory.filename().string(), total, "B");
  progress.update(0);
  for (const std::string_view document : part.documents) {
    if (document.empty()) continue;
    for (size_t begin = 0; begin < document.size();) {
      const size_t end = piece_end(document, begin);
      writer.add(tokenizer.encode(document.substr(begin, end - begin)), end - begin, begin > 0);
      done += static_cast<int64_t>(end - begin);
      begin = end;
      progress.update(done);
    }
    if (const auto separator = tokenizer.separator()) writer.add(std::vector{*separator}, 0, true);
  }
  check<DataError>(
      writer.size() >= part.least_tokens,
      "{}: this part must hold at least {} tokens, got {} out of {}; give more text or shorter windows",
      part.directory.string(), part.least_tokens, writer.size(), part.source);
  writer.finish();
}

PreparedPart prepare_part(const PartText& part, const Tokenizer& tokenizer, FileSystem& files, Log& log) {
  const bool kept = std::filesystem::exists(part.directory);
  if (!kept) write_part(part, tokenizer, files, log);
  PreparedPart out = open_part(part, tokenizer);
  out.kept = kept;
  log.info("{}: {} tokens from {} in {} document(s){}", part.directory.string(), out.tokens,
           format_bytes(out.bytes), out.documents, kept ? ", kept" : "");
  return out;
}

}  // namespace

void PrepareOptions::describe(Section& s) {
  s.field("tokenizer", tokenizer, "how text becomes tokens", one_of(tokenizer_names()));
  s.field("validation", validation, "share of every file's bytes, from its end, kept for validation",
          between(0.0, 0.9));
}

PrepareReport prepare(const PrepareOptions& options, const Path& directory, int64_t window, FileSystem& files,
                      Log& log) {
  check<ConfigError>(!options.text.empty(), "[prepare] text must name at least one file");
  check<ConfigError>(options.validation >= 0.0 && options.validation <= 0.9,
                     "[prepare] validation must be in [0, 0.9], got {}", options.validation);
  const auto tokenizer = make_tokenizer(options.tokenizer);
  std::vector<Text> texts;
  for (const std::string& path : options.text) texts.push_back(open_text(path, options.validation));
  const std::string source = fmt::format("{} text file(s), validation {}, xxh3 {}", texts.size(),
                                         options.validation, digest_of(texts));
  PartText train{directory / "train", "training part of " + source, {}, std::max(window, int64_t{1})};
  PartText validation{directory / "validation", "validation part of " + source, {}, 1};
  size_t held_out = 0;
  for (const Text& text : texts) {
    train.documents.push_back(text.train);
    validation.documents.push_back(text.validation);
    held_out += text.validation.size();
  }
  check<DataError>(held_out > 0 || options.validation == 0.0,
                   "[prepare] validation {} of {} must leave at least one byte; give more text",
                   options.validation, options.text.front());
  files.make_directories(directory);
  const DirectoryLock lock(directory);
  PrepareReport report;
  report.train = prepare_part(train, *tokenizer, files, log);
  if (options.validation > 0.0) report.validation = prepare_part(validation, *tokenizer, files, log);
  return report;
}

}  // namespace retort::data
