#include "distill/teacher_cache.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <limits>
#include <numeric>

#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "formats/hdf5.h"

namespace retort::distill {
namespace {

using formats::Hdf5File;
using formats::Hdf5Type;

constexpr std::string_view kFormat = "retort-teacher-cache";
constexpr int64_t kVersion = 1;
constexpr int64_t kGroup = 1024;                     // tokens an offset
constexpr int64_t kLargestBlock = int64_t{1} << 24;  // tokens; a file is built in memory

struct Column {
  const char* name;
  Hdf5Type type;
};

// The datasets of such a cache, in the order in which the digest takes them.
std::vector<Column> columns_of(const CacheFacts& facts) {
  const Hdf5Type small = facts.size <= 255 ? Hdf5Type::U8 : Hdf5Type::U16;
  const Hdf5Type id = facts.vocabulary <= 65536 ? Hdf5Type::U16 : Hdf5Type::U32;
  std::vector<Column> out = {{"labels", small}, {"offset", Hdf5Type::U64}, {"ids", id}};
  if (facts.kind == "sampled") {
    out.push_back({"counts", small});
  } else {
    out.push_back({"probs", Hdf5Type::F16});
    out.push_back({"rest", Hdf5Type::F16});
  }
  return out;
}

template <class T, class From>
std::vector<std::byte> packed(const std::vector<From>& values) {
  std::vector<std::byte> out(values.size() * sizeof(T));
  T* to = reinterpret_cast<T*>(out.data());
  for (size_t i = 0; i < values.size(); ++i) to[i] = static_cast<T>(values[i]);
  return out;
}

template <class From>
std::vector<std::byte> packed(const std::vector<From>& values, Hdf5Type type) {
  switch (formats::hdf5_type_bytes(type)) {
    case 1:
      return packed<uint8_t>(values);
    case 2:
      return packed<uint16_t>(values);
    case 4:
      return packed<uint32_t>(values);
    default:
      return packed<uint64_t>(values);
  }
}

std::vector<uint64_t> offsets_of(const std::vector<uint16_t>& labels) {
  std::vector<uint64_t> out;
  uint64_t sum = 0;
  for (size_t i = 0; i < labels.size(); sum += labels[i++])
    if (i % kGroup == 0) out.push_back(sum);
  out.push_back(sum);
  return out;
}

void check_facts(const CacheFacts& f, const std::string& where) {
  check<DataError>(f.kind == "sampled" || f.kind == "top_k", "{}: kind must be sampled or top_k, got \"{}\"",
                   where, f.kind);
  check<DataError>(f.size > 0 && f.size <= 65535, "{}: size must lie in 1 .. 65535, got {}", where, f.size);
  check<DataError>(f.vocabulary > 0 && f.vocabulary <= int64_t{1} << 32,
                   "{}: vocabulary must lie in 1 .. 2^32, got {}", where, f.vocabulary);
  check<DataError>(f.temperature > 0, "{}: temperature must be > 0, got {}", where, f.temperature);
  const auto fits = [](int64_t n, int64_t most) { return n > 0 && n <= most; };
  check<DataError>(fits(f.tokens, int64_t{1} << 48) && fits(f.block_tokens, kLargestBlock) &&
                       fits(f.window, kLargestBlock),
                   "{}: tokens must lie in 1 .. 2^48, block_tokens and window in 1 .. {}, got {}, {}, {}",
                   where, kLargestBlock, f.tokens, f.block_tokens, f.window);
}

// One file, opened and checked by itself.
struct Block {
  Block(const Path& cache, int64_t number);
  void verify() const;
  // The labels of a token: [first, first + count) of /ids. `hint`: where those of the token before it end.
  std::pair<uint64_t, uint64_t> labels_of(int64_t token, std::optional<uint64_t> hint) const;
  uint64_t id(uint64_t i) const { return wide_ids.empty() ? ids[i] : wide_ids[i]; }
  float value(uint64_t i) const {
    if (!probs.empty()) return at::Half(probs[i], at::Half::from_bits());
    return counts.empty() ? wide_counts[i] : counts[i];
  }
  std::string where() const { return file.path().string(); }

  Hdf5File file;
  CacheFacts facts;
  int64_t tokens = 0;
  uint64_t total = 0;  // labels
  std::span<const uint8_t> labels, counts;
  std::span<const uint16_t> wide_labels, wide_counts, ids, probs, rest;
  std::span<const uint32_t> wide_ids;
  std::span<const uint64_t> offsets;

 private:
  uint64_t count(int64_t token) const {
    const auto i = static_cast<size_t>(token);
    return labels.empty() ? wide_labels[i] : labels[i];
  }
  void read_facts(int64_t number);
  const Hdf5File::Dataset& column(const char* name, int64_t size) const;
  std::string digest() const;
};

Block::Block(const Path& cache, int64_t number) : file(block_path(cache, number)) {
  read_facts(number);
  tokens = facts.tokens_of(number);
  const int64_t groups = (tokens + kGroup - 1) / kGroup;
  column("offset", groups + 1);
  offsets = file.values<uint64_t>("offset");
  total = offsets.back();
  check<DataError>(total <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()),
                   "{}: /offset must end with the number of labels, got {}", where(), total);
  const auto all = static_cast<int64_t>(total);
  if (column("labels", tokens).type == Hdf5Type::U8)
    labels = file.values<uint8_t>("labels");
  else
    wide_labels = file.values<uint16_t>("labels");
  if (column("ids", all).type == Hdf5Type::U16)
    ids = file.values<uint16_t>("ids");
  else
    wide_ids = file.values<uint32_t>("ids");
  if (facts.kind == "top_k") {
    column("probs", all), column("rest", tokens);
    probs = file.values<uint16_t>("probs");
    rest = file.values<uint16_t>("rest");
  } else if (column("counts", all).type == Hdf5Type::U8) {
    counts = file.values<uint8_t>("counts");
  } else {
    wide_counts = file.values<uint16_t>("counts");
  }
}

void Block::read_facts(int64_t number) {
  check<DataError>(file.text("format") == kFormat, "{}: format must be \"{}\", got \"{}\"", where(), kFormat,
                   file.text("format"));
  check<DataError>(file.integer("version") == kVersion, "{}: version must be {}, got {}", where(), kVersion,
                   file.integer("version"));
  const auto temperature = file.attributes().find("temperature");
  check<DataError>(
      temperature != file.attributes().end() && std::holds_alternative<double>(temperature->second),
      "{}: attribute temperature must be a real number", where());
  facts = {.kind = file.text("kind"),
           .size = file.integer("size"),
           .temperature = std::get<double>(temperature->second),
           .vocabulary = file.integer("vocabulary"),
           .tokenizer = file.text("tokenizer"),
           .corpus = file.text("corpus"),
           .tokens = file.integer("tokens"),
           .block_tokens = file.integer("block_tokens"),
           .teacher = file.text("teacher"),
           .teacher_name = file.text("teacher_name"),
           .window = file.integer("window"),
           .isolate_documents = file.integer("isolate_documents") != 0,
           .seed = file.integer("seed")};
  check_facts(facts, where());
  check<DataError>(file.integer("block") == number && number < facts.blocks(),
                   "{}: attribute block must be {} of {}, got {}", where(), number, facts.blocks(),
                   file.integer("block"));
}

const Hdf5File::Dataset& Block::column(const char* name, int64_t size) const {
  const Hdf5File::Dataset& found = file.dataset(name);
  for (const Column& column : columns_of(facts))
    if (std::string_view(column.name) == name)
      check<DataError>(found.type == column.type, "{}: /{} must have {} bytes a value, got {}", where(), name,
                       formats::hdf5_type_bytes(column.type), formats::hdf5_type_bytes(found.type));
  check<DataError>(found.size == size, "{}: /{} must have {} values, got {}", where(), name, size,
                   found.size);
  return found;
}

std::string Block::digest() const {
  Digest digest;
  for (const Column& column : columns_of(facts)) digest.add(file.dataset(column.name).bytes);
  return hex(digest.value());
}

void Block::verify() const {
  const std::string found = digest();
  check<DataError>(found == file.text("data_digest"), "{} is damaged: its digest must be {}, got {}", where(),
                   file.text("data_digest"), found);
  uint64_t sum = 0;
  for (int64_t token = 0; token < tokens; sum += count(token++))
    check<DataError>(token % kGroup != 0 || offsets[static_cast<size_t>(token / kGroup)] == sum,
                     "{}: /offset must be the sum of /labels before token {}, {}", where(), token, sum);
  check<DataError>(sum == total, "{}: /labels must add up to {}, got {}", where(), total, sum);
}

std::pair<uint64_t, uint64_t> Block::labels_of(int64_t token, std::optional<uint64_t> hint) const {
  uint64_t first = 0;
  if (hint && token % kGroup != 0) {
    first = *hint;
  } else {
    first = offsets[static_cast<size_t>(token / kGroup)];
    for (int64_t t = token / kGroup * kGroup; t < token; ++t) first += count(t);
  }
  const uint64_t number = count(token);
  check<DataError>(number > 0 && number <= total && first <= total - number,
                   "{}: labels of token {} must lie in [0, {}), got {} + {}", where(), token, total, first,
                   number);
  return {first, number};
}

}  // namespace

std::string difference(const CacheFacts& expected, const CacheFacts& got) {
  std::string out;
  const auto compare = [&](const char* name, const auto& want, const auto& have) {
    if (out.empty() && want != have) out = fmt::format("{} must be {}, got {}", name, want, have);
  };
  compare("kind", expected.kind, got.kind);
  compare("size", expected.size, got.size);
  compare("temperature", expected.temperature, got.temperature);
  compare("vocabulary", expected.vocabulary, got.vocabulary);
  compare("tokenizer", expected.tokenizer, got.tokenizer);
  compare("corpus", expected.corpus, got.corpus);
  compare("tokens", expected.tokens, got.tokens);
  compare("block_tokens", expected.block_tokens, got.block_tokens);
  compare("teacher", expected.teacher, got.teacher);
  compare("window", expected.window, got.window);
  compare("isolate_documents", expected.isolate_documents, got.isolate_documents);
  compare("seed", expected.seed, got.seed);
  return out;
}

Path block_path(const Path& cache, int64_t block) { return cache / fmt::format("block-{:05d}.h5", block); }

void remove_half_blocks(FileSystem& files, const Path& cache, int64_t first, int64_t step) {
  std::vector<Path> halves;
  for (const auto& entry : std::filesystem::directory_iterator(cache)) {
    int64_t block = 0;
    int end = 0;  // stays 0 unless all of the form was there
    std::sscanf(entry.path().filename().c_str(), "block-%" SCNd64 ".h5.tmp.%n", &block, &end);
    if (end > 0 && block % step == first) halves.push_back(entry.path());
  }
  for (const Path& half : halves) files.remove_all(half);
}

void write_block(FileSystem& files, const Path& cache, const CacheFacts& facts, int64_t block,
                 const BlockLabels& labels) {
  const Path path = block_path(cache, block);
  check_facts(facts, path.string());
  check<InternalError>(std::ssize(labels.labels) == facts.tokens_of(block) &&
                           labels.ids.size() == labels.values.size() &&
                           labels.rest.size() == (facts.kind == "top_k" ? labels.labels.size() : 0),
                       "[teacher cache] block {} must have labels of {} tokens, got {}", block,
                       facts.tokens_of(block), labels.labels.size());
  formats::Hdf5Writer writer;
  Digest digest;
  for (const Column& column : columns_of(facts)) {
    const std::string_view name = column.name;
    const std::vector<std::byte> bytes = name == "labels"   ? packed(labels.labels, column.type)
                                         : name == "offset" ? packed(offsets_of(labels.labels), column.type)
                                         : name == "ids"    ? packed(labels.ids, column.type)
                                         : name == "rest"   ? packed(labels.rest, column.type)
                                                            : packed(labels.values, column.type);
    digest.add(bytes);
    writer.dataset(name, column.type, bytes);
  }
  writer.attribute("format", std::string(kFormat));
  writer.attribute("version", kVersion);
  writer.attribute("block", block);
  writer.attribute("kind", facts.kind);
  writer.attribute("size", facts.size);
  writer.attribute("temperature", facts.temperature);
  writer.attribute("vocabulary", facts.vocabulary);
  writer.attribute("tokenizer", facts.tokenizer);
  writer.attribute("corpus", facts.corpus);
  writer.attribute("tokens", facts.tokens);
  writer.attribute("block_tokens", facts.block_tokens);
  writer.attribute("teacher", facts.teacher);
  writer.attribute("teacher_name", facts.teacher_name);
  writer.attribute("window", facts.window);
  writer.attribute("isolate_documents", int64_t{facts.isolate_documents});
  writer.attribute("seed", facts.seed);
  writer.attribute("data_digest", hex(digest.value()));
  writer.write(files, path);
}

bool block_is_done(const Path& cache, const CacheFacts& facts, int64_t block, std::string& why) {
  why.clear();
  if (!std::filesystem::exists(block_path(cache, block))) return false;
  try {
    const Block found(cache, block);
    if (const std::string other = difference(facts, found.facts); !other.empty())
      fail<ConfigError>("{} belongs to another capture: {}", found.where(), other);
    found.verify();
    return true;
  } catch (const DataError& error) {
    why = error.what();
    return false;
  }
}

struct TeacherCache::State {
  Path directory;
  std::vector<Block> blocks;
};

TeacherCache::TeacherCache(const Path& directory) : state_(new State{directory, {}}) {
  check<IoError>(std::filesystem::is_directory(directory), "{}: no such directory of a teacher cache",
                 directory.string());
  for (int64_t n = 0; n == 0 || n < facts().blocks(); ++n) {
    const Path path = block_path(directory, n);
    check<DataError>(std::filesystem::exists(path),
                     "{} is missing: the capture was not finished; run `retort capture` again",
                     path.string());
    state_->blocks.emplace_back(directory, n);
    const Block& block = state_->blocks.back();
    const std::string other = difference(facts(), block.facts);
    check<DataError>(other.empty(), "{}: {} as in {}", block.where(), other,
                     block_path(directory, 0).string());
  }
}

TeacherCache::~TeacherCache() = default;
const CacheFacts& TeacherCache::facts() const { return state_->blocks.front().facts; }
const Path& TeacherCache::directory() const { return state_->directory; }

int64_t TeacherCache::labels() const {
  uint64_t sum = 0;
  for (const Block& block : state_->blocks) sum += block.total;
  return static_cast<int64_t>(sum);
}

uint64_t TeacherCache::bytes() const {
  uint64_t sum = 0;
  for (const Block& block : state_->blocks) sum += std::filesystem::file_size(block.file.path());
  return sum;
}

void TeacherCache::check_corpus(const data::TokenShards& corpus) const {
  const CacheFacts& f = facts();
  const std::string where = directory().string();
  check<DataError>(f.tokenizer == corpus.tokenizer_fingerprint(),
                   "{}: the cache's tokenizer must be the shards' {} ({}), got {}", where,
                   corpus.tokenizer_name(), corpus.tokenizer_fingerprint(), f.tokenizer);
  check<DataError>(
      f.corpus == hex(corpus.digest()) && f.tokens == corpus.size(),
      "{}: the cache was captured on other text: its corpus must be {} ({} tokens, made from {}), "
      "got {} ({} tokens)",
      where, hex(corpus.digest()), corpus.size(), corpus.source(), f.corpus, f.tokens);
}

void TeacherCache::check_teacher(const std::string& fingerprint, const std::string& name) const {
  check<DataError>(facts().teacher == fingerprint,
                   "{}: the cache is of another teacher: its weights must be those of {} ({}), got {} ({})",
                   directory().string(), name, fingerprint, facts().teacher_name, facts().teacher);
}

void TeacherCache::verify(int64_t first, int64_t step) const {
  for (int64_t n = first; n < std::ssize(state_->blocks); n += step)
    state_->blocks[static_cast<size_t>(n)].verify();
}

kernels::SparseLabels TeacherCache::read(const at::Tensor& places_N) const {
  const at::Tensor places = places_N.cpu().contiguous();
  const int64_t rows = places.numel();
  const std::span<const int64_t> place = host_values<const int64_t>(places);
  struct Row {
    const Block* block;
    int64_t token;
    uint64_t first, count;
  };
  std::vector<Row> found(static_cast<size_t>(rows));
  uint64_t widest = 1;
  for (size_t i = 0; i < found.size(); ++i) {
    check<DataError>(place[i] >= 0 && place[i] < facts().tokens, "{}: a place must lie in [0, {}), got {}",
                     directory().string(), facts().tokens, place[i]);
    const Block& block = state_->blocks[static_cast<size_t>(place[i] / facts().block_tokens)];
    const int64_t token = place[i] % facts().block_tokens;
    const bool follows = i > 0 && place[i] == place[i - 1] + 1 && token > 0;
    const auto hint = follows ? std::optional(found[i - 1].first + found[i - 1].count) : std::nullopt;
    const auto [first, count] = block.labels_of(token, hint);
    found[i] = {&block, token, first, count};
    widest = std::max(widest, count);
  }
  const auto width = static_cast<int64_t>(widest);
  const bool top_k = facts().kind == "top_k";
  kernels::SparseLabels out{at::zeros({rows, width}, at::kLong), at::zeros({rows, width}, at::kFloat),
                            top_k ? at::zeros({rows}, at::kFloat) : at::Tensor()};
  const std::span<int64_t> all_ids = host_values<int64_t>(out.ids_NK);
  const std::span<float> all_weights = host_values<float>(out.weights_NK);
  const std::span<float> rests = top_k ? host_values<float>(out.rest_N) : std::span<float>();
  for (size_t i = 0; i < found.size(); ++i) {
    const Row& row = found[i];
    const auto ids = all_ids.subspan(i * widest, widest);
    const auto weights = all_weights.subspan(i * widest, widest);
    const float rest =
        top_k ? float(at::Half(row.block->rest[static_cast<size_t>(row.token)], at::Half::from_bits()))
              : 0.0f;
    float sum = rest;
    for (uint64_t k = 0; k < row.count; ++k) {
      ids[k] = static_cast<int64_t>(row.block->id(row.first + k));
      weights[k] = row.block->value(row.first + k);
      sum += weights[k];
      check<DataError>(ids[k] < facts().vocabulary && weights[k] >= 0,
                       "{}: labels of token {} must be ids below {} with weights >= 0, got {} with {}",
                       row.block->where(), row.token, facts().vocabulary, ids[k], weights[k]);
    }
    // Counts are exact. Probabilities were rounded to halves, and are made to add up to 1 again.
    check<DataError>(top_k ? sum > 0.5f && sum < 2.0f : sum == static_cast<float>(facts().size),
                     "{}: weights of token {} must add up to {}, got {}", row.block->where(), row.token,
                     top_k ? 1 : facts().size, sum);
    for (uint64_t k = 0; k < row.count; ++k) weights[k] /= sum;
    if (top_k) rests[i] = rest / sum;
  }
  return out;
}

}  // namespace retort::distill
