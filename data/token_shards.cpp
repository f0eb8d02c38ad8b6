#include "data/token_shards.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <set>

#include "core/digest.h"
#include "core/error.h"
#include "formats/hdf5.h"
#include "formats/untrusted.h"

namespace retort::data {
namespace {

using formats::Hdf5File;
using formats::Hdf5Type;

constexpr std::string_view kFormat = "retort-tokens";
constexpr int64_t kVersion = 1, kMaskedVersion = 2, kPreferenceVersion = 3;
constexpr int64_t kBlock = int64_t{1} << 20;  // tokens a digest

Path shard_path(const Path& directory, int64_t number) {
  return directory / fmt::format("shard-{:05d}.h5", number);
}

int64_t version_of(ShardKind kind, bool masked) {
  if (kind != ShardKind::kText) return kPreferenceVersion;
  return masked ? kMaskedVersion : kVersion;
}

ShardKind read_kind(const std::string& name, const std::string& where) {
  for (const ShardKind kind : {ShardKind::kPairs, ShardKind::kRated})
    if (name == name_of(kind)) return kind;
  fail<DataError>("{}: attribute kind must be pairs or rated, got \"{}\"", where, formats::shown(name));
}

int64_t count_learned(std::span<const uint8_t> mask) {
  return std::ssize(mask) - std::count(mask.begin(), mask.end(), kRead);
}

Hdf5Type token_type(int64_t vocabulary) { return vocabulary <= 65536 ? Hdf5Type::U16 : Hdf5Type::U32; }

std::vector<uint64_t> block_digests(std::span<const std::byte> tokens, size_t width) {
  const size_t block = static_cast<size_t>(kBlock) * width;
  std::vector<uint64_t> out;
  for (size_t at = 0; at < tokens.size(); at += block)
    out.push_back(xxh3(tokens.subspan(at, std::min(block, tokens.size() - at))));
  return out;
}

std::string print_prefix(const std::vector<int32_t>& ids) { return fmt::format("{}", fmt::join(ids, ",")); }

// "1,5": ids of the vocabulary.
std::vector<int32_t> read_prefix(const std::string& text, int64_t vocabulary, const std::string& where) {
  std::vector<int32_t> ids;
  for (const char *at = text.data(), *end = at + text.size(); at < end; ++at) {
    int32_t id = -1;
    const auto [stop, error] = std::from_chars(at, end, id);
    check<DataError>(error == std::errc() && id >= 0 && id < vocabulary && (stop == end || *stop == ','),
                     "{}: attribute prefix must be ids below {}, got \"{}\"", where, vocabulary,
                     formats::shown(text));
    ids.push_back(id);
    at = stop;
  }
  return ids;
}

// One file, opened and checked on its own.
struct Shard {
  explicit Shard(const Path& path);
  template <class T>
  void copy(size_t from, std::span<int64_t> out) const;
  void read(int64_t from, std::span<int64_t> out) const;
  void verify() const;
  std::string where() const { return file.path().string(); }

  Hdf5File file;
  std::string fingerprint, name, source, documents_digest;
  std::vector<int32_t> prefix;  // that documents begin with
  int64_t vocabulary = 0, text_bytes = 0, number = 0, learned = 0;
  bool last = false;
  ShardKind kind = ShardKind::kText;
  Hdf5File::Dataset tokens;
  std::span<const uint64_t> starts;  // of documents
  std::span<const uint64_t> digests;
  std::span<const uint8_t> loss_mask;  // empty: every token is learned
  int64_t begin = 0;                   // in the concatenation

 private:
  void open_loss_mask();
};

Shard::Shard(const Path& path) : file(path) {
  check<DataError>(file.text("format") == kFormat, "{}: format must be \"{}\", got \"{}\"", where(), kFormat,
                   file.text("format"));
  const int64_t version = file.integer("version");
  check<DataError>(version >= kVersion && version <= kPreferenceVersion,
                   "{}: version must be {}, {} or {}, got {}", where(), kVersion, kMaskedVersion,
                   kPreferenceVersion, version);
  if (version == kPreferenceVersion) kind = read_kind(file.text("kind"), where());
  fingerprint = file.text("tokenizer");
  name = file.text("tokenizer_name");
  source = file.text("source");
  documents_digest = file.text("documents_digest");
  vocabulary = file.integer("vocabulary");
  text_bytes = file.integer("bytes");
  number = file.integer("shard");
  last = file.integer("last") != 0;
  check<DataError>(vocabulary > 0 && vocabulary <= std::numeric_limits<int32_t>::max(),
                   "{}: vocabulary must lie in 1 .. 2^31-1, got {}", where(), vocabulary);
  if (file.attributes().contains("prefix")) prefix = read_prefix(file.text("prefix"), vocabulary, where());
  check<DataError>(text_bytes >= 0, "{}: bytes must be >= 0, got {}", where(), text_bytes);

  tokens = file.dataset("tokens");
  check<DataError>(tokens.type == token_type(vocabulary), "{}: /tokens must be {} for a vocabulary of {}",
                   where(), vocabulary <= 65536 ? "u16" : "u32", vocabulary);
  check<DataError>(tokens.size > 0, "{}: /tokens is empty", where());
  for (const char* dataset : {"documents", "digest"})
    check<DataError>(file.dataset(dataset).type == Hdf5Type::U64, "{}: /{} must be u64", where(), dataset);
  digests = file.values<uint64_t>("digest");
  const int64_t blocks = (tokens.size + kBlock - 1) / kBlock;
  check<DataError>(static_cast<int64_t>(digests.size()) == blocks, "{}: /digest must have {} entries, got {}",
                   where(), blocks, digests.size());
  const auto documents = file.values<uint64_t>("documents");
  check<DataError>(!documents.empty() && documents.back() == static_cast<uint64_t>(tokens.size),
                   "{}: /documents must end with the number of tokens, {}", where(), tokens.size);
  for (size_t i = 1; i < documents.size(); ++i)
    check<DataError>(documents[i - 1] < documents[i], "{}: /documents must increase, got {} before {}",
                     where(), documents[i - 1], documents[i]);
  starts = documents.first(documents.size() - 1);
  learned = tokens.size;
  if (version != kVersion) open_loss_mask();
}

void Shard::open_loss_mask() {
  const auto& mask = file.dataset("loss_mask");
  check<DataError>(mask.type == Hdf5Type::U8 && mask.size == tokens.size,
                   "{}: /loss_mask must be u8 with {} entries, got {}", where(), tokens.size, mask.size);
  loss_mask = file.values<uint8_t>("loss_mask");
  learned = file.integer("learned");
  check<DataError>(learned >= 0 && learned <= tokens.size, "{}: learned must lie in 0 .. {}, got {}", where(),
                   tokens.size, learned);
}

template <class T>
void Shard::copy(size_t from, std::span<int64_t> out) const {
  const T* in = reinterpret_cast<const T*>(tokens.bytes.data()) + from;
  int64_t largest = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = in[i];
    largest = std::max(largest, out[i]);
  }
  // An id beyond the vocabulary would read past an embedding.
  check<DataError>(largest < vocabulary, "{}: token ids must be < {}, got {} in [{}, {})", where(),
                   vocabulary, largest, from, from + out.size());
}

void Shard::read(int64_t from, std::span<int64_t> out) const {
  if (tokens.type == Hdf5Type::U16)
    copy<uint16_t>(static_cast<size_t>(from), out);
  else
    copy<uint32_t>(static_cast<size_t>(from), out);
}

void Shard::verify() const {
  const auto found = block_digests(tokens.bytes, static_cast<size_t>(formats::hdf5_type_bytes(tokens.type)));
  for (size_t i = 0; i < found.size(); ++i)
    check<DataError>(found[i] == digests[i], "{}: /tokens block {} is damaged: its digest must be {}, got {}",
                     where(), i, hex(digests[i]), hex(found[i]));
  const std::string documents = hex(xxh3(file.dataset("documents").bytes));
  check<DataError>(documents == documents_digest, "{}: /documents is damaged: its digest must be {}, got {}",
                   where(), documents_digest, documents);
  if (!loss_mask.empty()) {
    const std::string mask = hex(xxh3(std::as_bytes(loss_mask)));
    check<DataError>(mask == file.text("loss_mask_digest") && count_learned(loss_mask) == learned,
                     "{}: /loss_mask is damaged: its digest must be {} with {} learned tokens, got {}",
                     where(), file.text("loss_mask_digest"), learned, mask);
  }
  std::vector<int64_t> block(static_cast<size_t>(std::min(kBlock, tokens.size)));
  for (int64_t at = 0; at < tokens.size; at += kBlock)
    read(at, std::span(block).first(static_cast<size_t>(std::min(kBlock, tokens.size - at))));
}

}  // namespace

std::string_view name_of(ShardKind kind) {
  return kind == ShardKind::kPairs ? "pairs" : kind == ShardKind::kRated ? "rated" : "text";
}

struct TokenShards::State {
  std::vector<Shard> shards;
  int64_t size = 0, documents = 0, learned = 0;
  uint64_t text_bytes = 0, digest = 0;

  void append(Shard shard);
  size_t shard_of(int64_t position) const;
  // Calls part(shard, from, offset in the read, count) for each shard that the read touches.
  template <class Part>
  void walk(int64_t begin, size_t count, Part part) const;
};

void TokenShards::State::append(Shard shard) {
  const auto number = static_cast<int64_t>(shards.size());
  check<DataError>(shard.number == number, "{}: attribute shard must be {}, got {}", shard.where(), number,
                   shard.number);
  if (shards.empty()) {
    check<DataError>(!shard.starts.empty() && shard.starts[0] == 0, "{}: the first document must start at 0",
                     shard.where());
  } else {
    const Shard& first = shards.front();
    check<DataError>(
        shard.fingerprint == first.fingerprint && shard.name == first.name &&
            shard.vocabulary == first.vocabulary && shard.source == first.source &&
            shard.prefix == first.prefix && shard.kind == first.kind &&
            shard.loss_mask.empty() == first.loss_mask.empty(),
        "{}: tokenizer, vocabulary, prefix, source, kind and having a loss mask must be those of {}",
        shard.where(), first.where());
  }
  shard.begin = size;
  size += shard.tokens.size;
  documents += static_cast<int64_t>(shard.starts.size());
  text_bytes += static_cast<uint64_t>(shard.text_bytes);
  learned += shard.learned;
  shards.push_back(std::move(shard));
}

size_t TokenShards::State::shard_of(int64_t position) const {
  check(position >= 0 && position < size, "[token shards] position must lie in [0, {}), got {}", size,
        position);
  const auto after = std::upper_bound(shards.begin(), shards.end(), position,
                                      [](int64_t p, const Shard& shard) { return p < shard.begin; });
  return static_cast<size_t>(after - shards.begin()) - 1;
}

TokenShards::TokenShards(const Path& directory) : state_(std::make_unique<State>()) {
  check<IoError>(std::filesystem::is_directory(directory), "{}: no such directory of token shards",
                 directory.string());
  do {
    const Path path = shard_path(directory, static_cast<int64_t>(state_->shards.size()));
    check<DataError>(std::filesystem::exists(path), "{}: token shard is missing", path.string());
    state_->append(Shard(path));
  } while (!state_->shards.back().last);
  const Path next = shard_path(directory, static_cast<int64_t>(state_->shards.size()));
  check<DataError>(!std::filesystem::exists(next), "{}: follows the last shard", next.string());
  check<DataError>(kind() != ShardKind::kPairs || documents() % 2 == 0,
                   "{}: pairs must be an even number of documents, got {}", directory.string(), documents());
  Digest digest;
  for (const Shard& shard : state_->shards) {
    digest.add(std::as_bytes(shard.digests));
    digest.add(as_bytes(shard.documents_digest));
    if (!shard.loss_mask.empty()) digest.add(as_bytes(shard.file.text("loss_mask_digest")));
    if (kind() != ShardKind::kText) digest.add(as_bytes(name_of(kind())));
  }
  state_->digest = digest.value();
}

TokenShards::~TokenShards() = default;

int64_t TokenShards::size() const { return state_->size; }
int64_t TokenShards::documents() const { return state_->documents; }
uint64_t TokenShards::text_bytes() const { return state_->text_bytes; }
int64_t TokenShards::vocabulary() const { return state_->shards.front().vocabulary; }
const std::string& TokenShards::tokenizer_fingerprint() const { return state_->shards.front().fingerprint; }
const std::string& TokenShards::tokenizer_name() const { return state_->shards.front().name; }
std::unique_ptr<Tokenizer> TokenShards::tokenizer() const {
  const Path directory = state_->shards.front().file.path().parent_path();
  auto made = copied_tokenizer(tokenizer_name(), directory);
  check<DataError>(made->fingerprint() == tokenizer_fingerprint(),
                   "{}: the tokenizer beside the shards has fingerprint {}, they were made with {}",
                   directory.string(), made->fingerprint(), tokenizer_fingerprint());
  if (made->prefix() == prefix()) return made;
  auto without = prefix().empty() ? made->without_prefix() : nullptr;
  check<DataError>(without != nullptr,
                   "{}: the tokenizer beside the shards puts {} before a text, they hold {}",
                   directory.string(), print_prefix(made->prefix()), print_prefix(prefix()));
  return without;
}
const std::vector<int32_t>& TokenShards::prefix() const { return state_->shards.front().prefix; }

void TokenShards::check_rows(int64_t rows, const std::string& where) const {
  if (vocabulary() <= rows) return;
  std::vector<int64_t> ids(size_t{1} << 20);
  for (int64_t begin = 0; begin < size(); begin += std::ssize(ids)) {
    ids.resize(static_cast<size_t>(std::min(std::ssize(ids), size() - begin)));
    read(begin, ids);
    const auto found = std::find_if(ids.begin(), ids.end(), [&](int64_t id) { return id >= rows; });
    check<DataError>(
        found == ids.end(),
        "{}: token {} of the text is id {} of tokenizer {}, and the model's embedding has {} rows", where,
        begin + (found - ids.begin()), found == ids.end() ? 0 : *found, tokenizer_name(), rows);
  }
}

const std::string& TokenShards::source() const { return state_->shards.front().source; }
uint64_t TokenShards::digest() const { return state_->digest; }

ShardKind TokenShards::kind() const { return state_->shards.front().kind; }
bool TokenShards::has_loss_mask() const { return !state_->shards.front().loss_mask.empty(); }
int64_t TokenShards::learned() const { return state_->learned; }

template <class Part>
void TokenShards::State::walk(int64_t begin, size_t count, Part part) const {
  const auto wanted = static_cast<int64_t>(count);
  check(begin >= 0 && wanted <= size && begin <= size - wanted,
        "[token shards] a read must lie in [0, {}), got [{}, {} + {})", size, begin, begin, wanted);
  for (size_t done = 0; done < count;) {
    const Shard& shard = shards[shard_of(begin + static_cast<int64_t>(done))];
    const int64_t from = begin + static_cast<int64_t>(done) - shard.begin;
    const size_t take = std::min(count - done, static_cast<size_t>(shard.tokens.size - from));
    part(shard, from, done, take);
    done += take;
  }
}

void TokenShards::read(int64_t begin, std::span<int64_t> out) const {
  state_->walk(begin, out.size(), [&](const Shard& shard, int64_t from, size_t at, size_t count) {
    shard.read(from, out.subspan(at, count));
  });
}

void TokenShards::read_loss_mask(int64_t begin, std::span<uint8_t> out) const {
  check(has_loss_mask(), "[token shards] a loss mask is read where there is none");
  state_->walk(begin, out.size(), [&](const Shard& shard, int64_t from, size_t at, size_t count) {
    std::copy_n(shard.loss_mask.begin() + from, count, out.begin() + static_cast<std::ptrdiff_t>(at));
  });
}

int64_t TokenShards::document_start(int64_t position) const {
  for (size_t i = state_->shard_of(position) + 1; i-- > 0;) {
    const Shard& shard = state_->shards[i];
    const auto after = std::upper_bound(shard.starts.begin(), shard.starts.end(),
                                        static_cast<uint64_t>(position - shard.begin));
    if (after != shard.starts.begin()) return shard.begin + static_cast<int64_t>(*(after - 1));
  }
  fail<InternalError>("[token shards] the first document must start at 0");  // checked on opening
}

int64_t TokenShards::document_end(int64_t position) const {
  const size_t holder = state_->shard_of(position);
  for (size_t i = holder; i < state_->shards.size(); ++i) {
    const Shard& shard = state_->shards[i];
    const auto after = i > holder ? shard.starts.begin()
                                  : std::upper_bound(shard.starts.begin(), shard.starts.end(),
                                                     static_cast<uint64_t>(position - shard.begin));
    if (after != shard.starts.end()) return shard.begin + static_cast<int64_t>(*after);
  }
  return state_->size;
}

void TokenShards::verify() const {
  for (const Shard& shard : state_->shards) shard.verify();
}

struct TokenShardWriter::State {
  FileSystem& files;
  Path directory, temporary;
  std::string fingerprint, name, prefix;
  std::map<std::string, std::string> tokenizer_files;
  std::string source;
  int64_t vocabulary, shard_tokens;
  bool masked;
  ShardKind kind;
  size_t width;                   // bytes a token
  std::vector<std::byte> tokens;  // of the shard being filled
  std::vector<uint8_t> loss_mask;
  std::vector<uint64_t> starts;
  uint64_t text_bytes = 0;
  int64_t written = 0, learned = 0, shards = 0;  // tokens, learned ones and files on disk
  // How far the pieces are taken: whole ones, tokens of the next, and of those the ones on disk already.
  int64_t pieces = 0, piece_tokens = 0, resumed_pieces = 0, resumed_tokens = 0;
  bool document_begins = true, finished = false;

  int64_t held() const { return static_cast<int64_t>(tokens.size() / width); }
  void keep_full_shards();
  template <class T>
  void append(std::span<const int32_t> ids);
  void write_shard(bool last);
};

// What a killed writer left: its full shards stay, all else in the temporary directory goes.
void TokenShardWriter::State::keep_full_shards() {
  std::set<Path> kept;
  while (std::filesystem::exists(shard_path(temporary, shards))) {
    try {
      const Shard shard(shard_path(temporary, shards));
      shard.verify();
      if (shard.number != shards || shard.last || shard.source != source ||
          shard.fingerprint != fingerprint || print_prefix(shard.prefix) != prefix ||
          shard.tokens.size != shard_tokens || shard.kind != kind || shard.loss_mask.empty() == masked)
        break;
      const int64_t next_piece = shard.file.integer("next_piece"),
                    next_token = shard.file.integer("next_token"),
                    begins = shard.file.integer("document_begins");
      if (next_piece < 0 || next_token < 0) break;
      resumed_pieces = pieces = next_piece;
      resumed_tokens = next_token;
      document_begins = begins != 0;
      written += shard.tokens.size;
      learned += shard.learned;
      kept.insert(shard_path(temporary, shards++));
    } catch (const DataError&) {  // half of a file, or another format: made again
      break;
    }
  }
  files.make_directories(temporary);
  std::vector<Path> others;
  for (const auto& entry : std::filesystem::directory_iterator(temporary))
    if (!kept.contains(entry.path())) others.push_back(entry.path());
  for (const Path& path : others) files.remove_all(path);
}

template <class T>
void TokenShardWriter::State::append(std::span<const int32_t> ids) {
  const size_t end = tokens.size();
  tokens.resize(end + ids.size() * sizeof(T));
  T* out = reinterpret_cast<T*>(tokens.data() + end);
  for (size_t i = 0; i < ids.size(); ++i) {
    check<DataError>(ids[i] >= 0 && ids[i] < vocabulary, "[token shards] an id must lie in [0, {}), got {}",
                     vocabulary, ids[i]);
    out[i] = static_cast<T>(ids[i]);
  }
}

void TokenShardWriter::State::write_shard(bool last) {
  starts.push_back(static_cast<uint64_t>(held()));
  const auto documents = std::as_bytes(std::span(starts));
  const std::vector<uint64_t> digests = block_digests(tokens, width);
  formats::Hdf5Writer writer;
  writer.attribute("format", std::string(kFormat));
  writer.attribute("version", version_of(kind, masked));
  if (kind != ShardKind::kText) writer.attribute("kind", std::string(name_of(kind)));
  writer.attribute("shard", shards);
  writer.attribute("last", int64_t{last});
  writer.attribute("tokenizer", fingerprint);
  writer.attribute("tokenizer_name", name);
  writer.attribute("vocabulary", vocabulary);
  writer.attribute("prefix", prefix);
  writer.attribute("source", source);
  writer.attribute("bytes", static_cast<int64_t>(text_bytes));
  writer.attribute("documents_digest", hex(xxh3(documents)));
  writer.attribute("next_piece", pieces);
  writer.attribute("next_token", piece_tokens);
  writer.attribute("document_begins", int64_t{document_begins});
  writer.dataset("tokens", token_type(vocabulary), std::span<const std::byte>(tokens));
  writer.dataset("documents", Hdf5Type::U64, documents);
  writer.dataset("digest", Hdf5Type::U64, std::as_bytes(std::span(digests)));
  if (masked) {
    const auto mask = std::as_bytes(std::span(loss_mask));
    const int64_t count = count_learned(loss_mask);
    writer.attribute("loss_mask_digest", hex(xxh3(mask)));
    writer.attribute("learned", count);
    writer.dataset("loss_mask", Hdf5Type::U8, mask);
    learned += count;
  } else {
    learned += held();
  }
  writer.write(files, shard_path(temporary, shards));
  written += held();
  ++shards;
  tokens.clear();
  loss_mask.clear();
  starts.clear();
  text_bytes = 0;
}

TokenShardWriter::TokenShardWriter(FileSystem& files, const Path& directory, const Tokenizer& tokenizer,
                                   std::string source, int64_t shard_tokens, bool loss_mask, ShardKind kind) {
  check<ConfigError>(shard_tokens > 0, "[token shards] a shard must hold at least 1 token, got {}",
                     shard_tokens);
  const Path normal = directory.lexically_normal();
  const Path target = normal.has_filename() ? normal : normal.parent_path();  // "out/train/" is "out/train"
  check<DataError>(!std::filesystem::exists(target), "{}: exists already", target.string());
  const int64_t vocabulary = tokenizer.vocabulary();
  const auto width = static_cast<size_t>(formats::hdf5_type_bytes(token_type(vocabulary)));
  state_.reset(new State{.files = files,
                         .directory = target,
                         .temporary = target.string() + ".tmp",
                         .fingerprint = tokenizer.fingerprint(),
                         .name = tokenizer.name(),
                         .prefix = print_prefix(tokenizer.prefix()),
                         .tokenizer_files = data::tokenizer_files(tokenizer),
                         .source = std::move(source),
                         .vocabulary = vocabulary,
                         .shard_tokens = shard_tokens,
                         .masked = loss_mask || kind != ShardKind::kText,
                         .kind = kind,
                         .width = width,
                         .tokens = {},
                         .loss_mask = {},
                         .starts = {}});
  state_->keep_full_shards();
}

TokenShardWriter::~TokenShardWriter() {
  const State& s = *state_;
  if (s.finished || s.shards > 0) return;  // full shards are work that the next writer keeps
  try {
    s.files.remove_all(s.temporary);
  } catch (const std::exception&) {  // the next writer tries again
  }
}

int64_t TokenShardWriter::pieces_done() const { return state_->resumed_pieces; }

void TokenShardWriter::add(std::span<const int32_t> ids, uint64_t text_bytes, bool continues,
                           uint8_t learned) {
  State& s = *state_;
  RETORT_ASSERT(!s.finished);
  check<DataError>(s.resumed_tokens <= static_cast<int64_t>(ids.size()),
                   "{}: was begun with other pieces; remove it", s.temporary.string());
  const int64_t on_disk = std::exchange(s.resumed_tokens, 0);
  if (!continues && on_disk == 0) s.document_begins = true;
  s.piece_tokens = on_disk;
  for (ids = ids.subspan(static_cast<size_t>(on_disk)); !ids.empty();) {
    // A full shard is written when more comes, so that the last one knows that it is the last.
    if (s.held() == s.shard_tokens) s.write_shard(false);
    if (std::exchange(s.document_begins, false)) s.starts.push_back(static_cast<uint64_t>(s.held()));
    const auto take = std::min(ids.size(), static_cast<size_t>(s.shard_tokens - s.held()));
    if (s.width == sizeof(uint16_t))
      s.append<uint16_t>(ids.first(take));
    else
      s.append<uint32_t>(ids.first(take));
    if (s.masked) s.loss_mask.resize(s.loss_mask.size() + take, learned);
    s.piece_tokens += static_cast<int64_t>(take);
    ids = ids.subspan(take);
  }
  s.text_bytes += text_bytes;
  s.piece_tokens = 0;
  ++s.pieces;
}

int64_t TokenShardWriter::size() const { return state_->written + state_->held(); }

void TokenShardWriter::finish() {
  State& s = *state_;
  check<DataError>(size() > 0, "{}: there are no tokens to write", s.directory.string());
  s.write_shard(true);
  check<DataError>(s.learned > 0, "{}: no token is learned: the answers are empty", s.directory.string());
  for (const auto& [name, content] : s.tokenizer_files) write_durably(s.files, s.temporary / name, content);
  s.files.rename(s.temporary, s.directory);
  s.finished = true;
  s.files.sync_directory(s.directory.parent_path());
}

}  // namespace retort::data
