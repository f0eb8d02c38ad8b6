#include "data/tokenizers/bpe_training.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <set>
#include <thread>

#include "core/error.h"
#include "data/in_order.h"
#include "data/pieces.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/gguf_vocabulary.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"

namespace retort::data {
namespace {

constexpr int32_t kBytes = 256;
constexpr int64_t kMostTokens = int64_t{1} << 24;

using Counts = std::unordered_map<std::string, int64_t>;

// Different pieces of all files, most frequent first.
std::vector<std::pair<std::string, int64_t>> count_pieces(const std::vector<std::string>& files,
                                                          const BpeSpec& spec, int64_t threads) {
  const Normalizer normalizer(spec.normalizer, spec.name);
  const PreTokenizer pre(spec.pre_tokenizer, spec.name);
  Counts all;
  size_t file = 0;
  std::unique_ptr<PieceReader> reader;
  const auto read = [&]() -> std::optional<Piece> {
    for (Piece piece; true; reader.reset()) {
      if (!reader && file == files.size()) return std::nullopt;
      if (!reader) reader = open_pieces(files[file++], {}, 0.0, Part::kTrain);
      if (reader->next(piece)) return piece;
    }
  };
  const auto count = [&](const Piece& piece) {
    const std::string text = normalizer.apply(piece.text);
    Counts counts;
    std::vector<size_t> ends;
    pre.split(text, ends);
    size_t begin = 0;
    for (const size_t end : ends) {
      ++counts[text.substr(begin, end - begin)];
      begin = end;
    }
    return counts;
  };
  in_order(threads, read, count, [&](const Counts& counts) {
    for (const auto& [text, times] : counts) all[text] += times;
  });
  std::vector<std::pair<std::string, int64_t>> out(all.begin(), all.end());
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  return out;
}

// The pieces as symbols, and every pair of neighbours with its count and the pieces that hold it.
class Pairs {
 public:
  explicit Pairs(const std::vector<std::pair<std::string, int64_t>>& pieces) {
    for (const auto& [text, times] : pieces) {
      Word& word = words_.emplace_back();
      word.times = times;
      for (const char byte : text) word.symbols.push_back(static_cast<unsigned char>(byte));
      count(static_cast<uint32_t>(words_.size() - 1), 1);
    }
    for (const auto& [pair, stat] : stats_) queue_.push({stat.times, pair});
  }

  // The most frequent pair, of equals the one of lowest ids; times 0 when there is none.
  struct Best {
    int64_t times = 0;
    int32_t left = 0, right = 0;
  };
  Best best() {
    while (!queue_.empty()) {
      const Entry top = queue_.top();
      queue_.pop();
      const int64_t times = stats_.at(top.pair).times;
      if (times == top.times && times > 0)
        return {times, static_cast<int32_t>(top.pair >> 32), static_cast<int32_t>(top.pair & UINT32_MAX)};
      if (times > 0 && times < top.times) queue_.push({times, top.pair});
    }
    return {};
  }

  void join(const Best& pair, int32_t joined) {
    const std::vector<uint32_t> holders = std::move(stats_.at(key(pair.left, pair.right)).words);
    changed_.clear();
    for (const uint32_t index : holders) {
      std::vector<int32_t>& symbols = words_[index].symbols;
      if (!holds(symbols, pair)) continue;  // no longer
      count(index, -1);
      size_t kept = 0;
      for (size_t i = 0; i < symbols.size(); ++i, ++kept) {
        const bool here = i + 1 < symbols.size() && symbols[i] == pair.left && symbols[i + 1] == pair.right;
        symbols[kept] = here ? joined : symbols[i];
        i += here ? 1 : 0;
      }
      symbols.resize(kept);
      count(index, 1);
    }
    for (const uint64_t grown : changed_) queue_.push({stats_.at(grown).times, grown});
  }

 private:
  struct Word {
    std::vector<int32_t> symbols;
    int64_t times = 0;
  };
  struct Stat {
    int64_t times = 0;
    std::vector<uint32_t> words;  // that hold the pair, or did
  };
  struct Entry {  // of the queue; times may be out of date, never too low
    int64_t times;
    uint64_t pair;
    bool operator<(const Entry& other) const {
      return times != other.times ? times < other.times : pair > other.pair;
    }
  };

  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static bool holds(const std::vector<int32_t>& symbols, const Best& pair) {
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      if (symbols[i] == pair.left && symbols[i + 1] == pair.right) return true;
    return false;
  }
  void count(uint32_t index, int64_t sign) {
    const Word& word = words_[index];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const uint64_t pair = key(word.symbols[i], word.symbols[i + 1]);
      Stat& stat = stats_[pair];
      stat.times += sign * word.times;
      if (sign < 0) continue;
      if (stat.words.empty() || stat.words.back() != index) stat.words.push_back(index);
      changed_.insert(pair);
    }
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, Stat> stats_;
  std::priority_queue<Entry> queue_;
  std::set<uint64_t> changed_;  // pairs whose count a join changed
};

void check_options(const BpeTrainingOptions& options) {
  const auto least = kBytes + static_cast<int64_t>(options.special.size());
  check<ConfigError>(
      options.vocabulary >= least && options.vocabulary <= kMostTokens,
      "[tokenizer train] vocabulary must lie in {} .. {} (256 bytes and the special tokens), got {}", least,
      kMostTokens, options.vocabulary);
  check<ConfigError>(options.least_count >= 1, "[tokenizer train] the least count must be at least 1, got {}",
                     options.least_count);
  std::set<std::string> seen;
  for (const std::string& token : options.special)
    check<ConfigError>(
        token.size() > 1 && seen.insert(token).second,
        "[tokenizer train] a special token must be longer than a byte and named once, got \"{}\"", token);
}

void add_special(BpeSpec& spec, const std::vector<std::string>& special) {
  for (const std::string& text : special) {
    const auto id = static_cast<int32_t>(spec.tokens.size());
    check<ConfigError>(std::find(spec.tokens.begin(), spec.tokens.end(), text) == spec.tokens.end(),
                       "[tokenizer train] the special token \"{}\" came out of the text too", text);
    spec.tokens.push_back(text);
    spec.added.push_back({.id = id, .text = text, .special = true});
  }
  if (!special.empty()) spec.end = spec.added.front().id;
}

}  // namespace

void BpeTrainingOptions::describe(Section& s) {
  s.field("vocabulary", vocabulary, "number of tokens, the 256 bytes and the special ones included",
          between<int64_t>(kBytes, kMostTokens));
  s.field("special", special, "special tokens, the first ends a document");
  s.field("pattern", pattern, "rule that cuts text into pieces", one_of(byte_level_names()));
  s.field("least_count", least_count, "times that a pair must occur to become a token", at_least<int64_t>(1));
}

BpeSpec train_bpe(const std::vector<std::string>& files, const BpeTrainingOptions& options, Log& log) {
  check_options(options);
  BpeSpec spec = byte_level_spec(options.pattern);
  spec.name = "trained";
  const int64_t processors = std::max<int64_t>(1, std::thread::hardware_concurrency());
  const auto pieces = count_pieces(files, spec, options.threads > 0 ? options.threads : processors);
  log.info("{} different pieces in {} file(s)", pieces.size(), files.size());
  std::vector<std::string> bytes;
  std::unordered_map<std::string, int32_t> ids;
  const auto add = [&](std::string text) {
    const auto id = static_cast<int32_t>(bytes.size());
    ids.emplace(text, id);
    spec.tokens.push_back(to_byte_alphabet(text));
    bytes.push_back(std::move(text));
    return id;
  };
  for (int32_t byte = 0; byte < kBytes; ++byte) add(std::string(1, static_cast<char>(byte)));
  Pairs pairs(pieces);
  const auto wanted = static_cast<size_t>(options.vocabulary) - options.special.size();
  Progress progress(log, "tokenizer", static_cast<int64_t>(wanted), "tokens");
  while (bytes.size() < wanted) {
    const Pairs::Best best = pairs.best();
    if (best.times < options.least_count) break;
    std::string text = bytes[static_cast<size_t>(best.left)] + bytes[static_cast<size_t>(best.right)];
    const auto known = ids.find(text);  // put together of other parts before
    const int32_t joined = known != ids.end() ? known->second : add(std::move(text));
    spec.merges.push_back({best.left, best.right, joined});
    pairs.join(best, joined);
    progress.update(static_cast<int64_t>(bytes.size()));
  }
  progress.finish();
  if (bytes.size() < wanted)
    log.warn("the text has pairs for {} tokens only, {} were wanted", bytes.size(), wanted);
  add_special(spec, options.special);
  return spec;
}

std::unique_ptr<Tokenizer> train_tokenizer(const std::vector<std::string>& texts, const Path& directory,
                                           const BpeTrainingOptions& options, FileSystem& files, Log& log) {
  std::unique_ptr<Tokenizer> tokenizer = make_bpe_tokenizer(train_bpe(texts, options, log));
  files.make_directories(directory);
  for (const auto& [name, content] : tokenizer->hf_files()) write_durably(files, directory / name, content);
  log.info("{}: {} tokens, fingerprint {}", directory.string(), tokenizer->vocabulary(),
           tokenizer->fingerprint());
  return tokenizer;
}

}  // namespace retort::data
