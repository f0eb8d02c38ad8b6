#include "data/prepare.h"

#include <algorithm>
#include <thread>

#include "core/digest.h"
#include "core/error.h"
#include "data/byte_source.h"
#include "data/in_order.h"
#include "data/pieces.h"
#include "data/tokenizers/templated_tokenizer.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {
namespace {

constexpr size_t kJob = size_t{1} << 18;  // bytes of text that a thread takes at a time, or one piece
constexpr size_t kBefore = 256;           // bytes before a piece that its tokenizer sees: a mark's at least

// Names the split documents whatever the files are called: contents, formats and how they are read. The first
// word changes when the same input comes to give other pieces, or pieces other tokens.
std::string digest_of(const PrepareOptions& options, const ConversationForm* form) {
  const DocumentOptions& d = options.documents;
  Digest digest;
  digest.add(as_bytes(fmt::format(
      "pieces 2\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n", d.field, d.messages, fmt::join(d.prompt, "\n"), d.response,
      form != nullptr ? form->identity() : d.chat_template, d.split, d.invalid_utf8)));
  if (d.kind() != ShardKind::kText)
    digest.add(as_bytes(fmt::format("{} {}\n{}\n{}\n", name_of(d.kind()), d.chosen, d.rejected, d.label)));
  if (d.bad_records != "refuse") digest.add(as_bytes(d.bad_records));
  std::string window(size_t{1} << 20, '\0');
  for (const std::string& path : options.text) {
    const auto source = open_packed_bytes(path);
    const uint64_t size = std::filesystem::file_size(path);
    check<DataError>(size > 0, "{}: text must hold at least one byte, got an empty file", path);
    digest.add(as_bytes(fmt::format("{} {} ", format_of(path, d), size)));
    while (const size_t got = source->read(window)) digest.add(as_bytes({window.data(), got}));
    check<DataError>(source->consumed() == size, "{}: must keep its {} bytes while it is read, got {}", path,
                     size, source->consumed());
  }
  return hex(digest.value());
}

// A part's pieces, file after file, in jobs of about equal size.
class Jobs {
 public:
  struct Item {
    Piece piece;
    std::string before;  // the end of what its document has before it
  };
  struct Job {
    std::vector<Item> items;
    uint64_t consumed;  // bytes of all files
  };
  Jobs(const PrepareOptions& options, std::shared_ptr<const ConversationForm> form, Part part, int64_t skip)
      : options_(options), form_(std::move(form)), part_(part), skip_(skip) {}

  std::optional<Job> next() {
    Job job;
    Piece piece;
    for (size_t bytes = 0; bytes < kJob && advance(piece);) {
      if (!piece.continues) tail_.clear();
      std::string before = tail_;
      tail_ += std::string_view(piece.text).substr(piece.text.size() - std::min(piece.text.size(), kBefore));
      tail_.erase(0, tail_.size() - std::min(tail_.size(), kBefore));
      if (skip_-- > 0) continue;
      bytes += piece.text.size();
      job.items.push_back({std::move(piece), std::move(before)});
    }
    if (job.items.empty()) return std::nullopt;
    job.consumed = before_ + (reader_ ? reader_->consumed() : 0);
    return job;
  }
  const LeftOut& left_out() const { return left_out_; }  // of the files that are done

 private:
  bool advance(Piece& piece) {
    while (true) {
      if (reader_ && reader_->next(piece)) return true;
      if (reader_) before_ += reader_->consumed(), left_out_.add(reader_->left_out());
      reader_.reset();
      if (file_ == options_.text.size()) return false;
      reader_ = open_pieces(options_.text[file_++], options_.documents, options_.validation, part_, form_);
    }
  }

  const PrepareOptions& options_;
  std::shared_ptr<const ConversationForm> form_;
  Part part_;
  int64_t skip_;
  std::unique_ptr<PieceReader> reader_;
  std::string tail_;  // the end of the document so far
  size_t file_ = 0;
  uint64_t before_ = 0;  // bytes of the files that are done
  LeftOut left_out_;
};

struct Encoded {
  struct Piece {
    std::vector<int32_t> ids;
    uint64_t bytes;
    bool continues;
    uint8_t learned;
  };
  std::vector<Piece> pieces;
  uint64_t consumed;
};

bool starts_with(const std::vector<int32_t>& ids, const std::vector<int32_t>& prefix) {
  return ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
}

// A document begins with the prefix, unless its own text does, as that of some chat templates.
void begin_with(const std::vector<int32_t>& prefix, std::vector<int32_t>& ids) {
  if (!starts_with(ids, prefix)) ids.insert(ids.begin(), prefix.begin(), prefix.end());
}

// Whether a model's own template prints the tokenizer's prefix; else the model was tuned without one.
bool prints_prefix(const ConversationForm& form, const Tokenizer& tokenizer) {
  const formats::Json turn =
      formats::Json::parse(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])");
  try {
    return starts_with(tokenizer.encode(form.spans(turn, "a sample").front().text), tokenizer.prefix());
  } catch (const DataError&) {
    return false;  // of a template that wants other turns
  }
}

// An answer that is compared has one end: a mark of its template, or else the separator.
bool has_end(const Piece& piece, const std::vector<int32_t>& ids, int32_t separator,
             const ConversationForm* form) {
  if (!piece.answer) return false;
  const auto ends = [&](const std::string& mark) { return piece.text.ends_with(mark); };
  return (!ids.empty() && ids.back() == separator) || std::ranges::any_of(form->marks(), ends);
}

Encoded encode(const Jobs::Job& job, const Tokenizer& tokenizer, const ConversationForm* form) {
  const std::vector<int32_t> prefix = tokenizer.prefix();
  const std::optional<int32_t> separator = tokenizer.separator();
  Encoded out{{}, job.consumed};
  for (const auto& [piece, before] : job.items) {
    try {
      out.pieces.push_back(
          {tokenizer.encode_after(before, piece.text), piece.text.size(), piece.continues, piece.learned});
    } catch (const DataError& error) {
      fail<DataError>("{}: {}", piece.where, error.what());
    }
    if (!piece.continues) begin_with(prefix, out.pieces.back().ids);
    std::vector<int32_t>& ids = out.pieces.back().ids;
    if (piece.ends && separator && !has_end(piece, ids, *separator, form)) ids.push_back(*separator);
  }
  return out;
}

struct PartPlan {
  Part part;
  Path directory;
  std::string source;  // in words, digest included
  int64_t least_tokens;
  std::shared_ptr<const ConversationForm> form;  // of conversations
};

PreparedPart open_part(const PartPlan& plan, const Tokenizer& tokenizer) {
  const TokenShards shards(plan.directory);
  check<DataError>(
      shards.source() == plan.source && shards.tokenizer_fingerprint() == tokenizer.fingerprint(),
      "{}: holds other tokens: made from {} ({}), wanted {} ({}); remove it or choose another directory",
      plan.directory.string(), shards.source(), shards.tokenizer_name(), plan.source, tokenizer.name());
  shards.verify();
  return {plan.directory,  shards.size(), shards.learned(), shards.documents(), shards.text_bytes(),
          shards.digest(), false};
}

std::string in_words(const LeftOut& left_out) {
  std::string out;
  if (left_out.empty > 0) out += fmt::format(", {} record(s) without text", left_out.empty);
  if (left_out.malformed > 0) out += fmt::format(", {} malformed record(s)", left_out.malformed);
  return out;
}

void tell(const LeftOut& left_out, const Path& directory, Log& log) {
  const std::string words = in_words(left_out);
  if (words.empty()) return;
  log.warn("{}: left out: {}", directory.parent_path().string(), words.substr(2));
  for (const std::string& one : left_out.first) log.warn("{}", one);
}

void write_part(const PartPlan& plan, const PrepareOptions& options, const Tokenizer& tokenizer,
                FileSystem& files, Log& log) {
  uint64_t total = 0;
  for (const std::string& path : options.text) total += std::filesystem::file_size(path);
  TokenShardWriter writer(files, plan.directory, tokenizer, plan.source, options.shard_tokens,
                          options.documents.conversations(), options.documents.kind());
  if (writer.pieces_done() > 0)
    log.info("{}: continues after {} tokens that are there", plan.directory.string(), writer.size());
  Progress progress(log, "prepare " + plan.directory.filename().string(), static_cast<int64_t>(total), "B");
  progress.update(0);
  Jobs jobs(options, plan.form, plan.part, writer.pieces_done());
  const int64_t processors = std::max<int64_t>(1, std::thread::hardware_concurrency());
  in_order(
      options.threads > 0 ? options.threads : processors, [&] { return jobs.next(); },
      [&](const Jobs::Job& job) { return encode(job, tokenizer, plan.form.get()); },
      [&](const Encoded& encoded) {
        for (const Encoded::Piece& piece : encoded.pieces)
          writer.add(piece.ids, piece.bytes, piece.continues, piece.learned);
        progress.update(static_cast<int64_t>(std::min(encoded.consumed, total)));
      });
  if (plan.part == Part::kTrain) tell(jobs.left_out(), plan.directory, log);  // all records pass here once
  check<DataError>(
      writer.size() >= plan.least_tokens,
      "{}: this part must hold at least {} tokens, got {} out of {}{}; give more text or shorter windows",
      plan.directory.string(), plan.least_tokens, writer.size(), plan.source, in_words(jobs.left_out()));
  writer.finish();
}

PreparedPart prepare_part(const PartPlan& plan, const PrepareOptions& options, const Tokenizer& tokenizer,
                          FileSystem& files, Log& log) {
  const bool kept = std::filesystem::exists(plan.directory);
  if (!kept) write_part(plan, options, tokenizer, files, log);
  PreparedPart out = open_part(plan, tokenizer);
  out.kept = kept;
  const std::string learned = out.learned < out.tokens ? fmt::format(" ({} learned)", out.learned) : "";
  const ShardKind kind = options.documents.kind();
  const std::string of = kind == ShardKind::kText ? "" : fmt::format(" ({})", name_of(kind));
  log.info("{}: {} tokens{} from {} in {} document(s){}, xxh3 {}{}", plan.directory.string(), out.tokens,
           learned, format_bytes(out.bytes), out.documents, of, hex(out.digest), kept ? ", kept" : "");
  return out;
}

// What documents are read with: of conversations also how they are written.
struct Reading {
  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<const ConversationForm> form = nullptr;

  void leave_prefix_away() {
    if (auto without = tokenizer->without_prefix()) tokenizer = std::move(without);
  }
};

Reading reading_of(const PrepareOptions& options) {
  Reading out{make_tokenizer(options.tokenizer)};
  if (!options.begin_token) out.leave_prefix_away();
  const DocumentOptions& documents = options.documents;
  if (!documents.conversations()) return out;
  out.form =
      std::make_shared<ConversationForm>(documents.chat_template, documents.chat_date, out.tokenizer.get());
  if (!out.form->shipped() && !prints_prefix(*out.form, *out.tokenizer)) out.leave_prefix_away();
  return out;
}

// A mark that is no token of its own still works, but other software expects one; without a mark that ends a
// turn the model does not learn where to stop.
void warn_of_marks(const ConversationForm& form, const Tokenizer& tokenizer, Log& log) {
  if (form.marks().empty() && !form.shipped())
    log.warn(
        "chat template {}: no turn ends with a control token of tokenizer {}, so where to stop is not "
        "learned",
        form.name(), tokenizer.name());
  for (const std::string& mark : form.marks())
    if (const size_t tokens = tokenizer.encode(mark).size(); tokens != 1)
      log.warn("chat template {}: {} is {} tokens of tokenizer {}, not one", form.name(), mark, tokens,
               tokenizer.name());
}

}  // namespace

void PrepareOptions::describe(Section& s) {
  s.field(
      "tokenizer", tokenizer,
      "tokenizer of the text: bytes, a tokenizer's file or folder, or in a recipe stage:NAME of a tokenizer "
      "stage");
  s.field("text", text, "files to read; empty: those of run.text");
  s.field(
      "begin_token", begin_token,
      "whether documents begin with what the tokenizer puts before a text, its begin token; without it the "
      "model that is trained, and what is exported of it, do not begin with it either");
  s.field("validation", validation,
          "share that is kept for validation: of every text file's bytes, from its end; of records, by their "
          "digests",
          between(0.0, 0.9));
  documents.describe(s);
  s.field("shard_tokens", shard_tokens,
          "tokens of one shard, which a killed preparation may have to make again", at_least<int64_t>(1));
}

std::unique_ptr<Tokenizer> prepared_tokenizer(const PrepareOptions& options) {
  return reading_of(options).tokenizer;
}

PrepareReport prepare(const PrepareOptions& options, const Path& directory, int64_t window, FileSystem& files,
                      Log& log) {
  check<ConfigError>(!options.text.empty(), "[prepare] text must name at least one file");
  check<ConfigError>(options.validation >= 0.0 && options.validation <= 0.9,
                     "[prepare] validation must be in [0, 0.9], got {}", options.validation);
  Reading reading = reading_of(options);
  std::unique_ptr<Tokenizer>& tokenizer = reading.tokenizer;
  const ConversationForm* form = reading.form.get();
  if (form) {
    warn_of_marks(*form, *tokenizer, log);
    tokenizer = with_chat_template(std::move(tokenizer), form->text());  // of the model that is trained on it
  }
  const std::string begin = tokenizer->prefix().empty() ? "" : ", with begin tokens";
  const std::string source = fmt::format("{} file(s), validation {}, xxh3 {}{}", options.text.size(),
                                         options.validation, digest_of(options, form), begin);
  files.make_directories(directory);
  const DirectoryLock lock(directory);
  const auto part = [&](Part which, const char* name, int64_t least) {
    return prepare_part(
        {which, directory / name, fmt::format("{} part of {}", name, source), least, reading.form}, options,
        *tokenizer, files, log);
  };
  PrepareReport report;
  report.train = part(Part::kTrain, "train", std::max(window, int64_t{1}));
  if (options.validation > 0.0) report.validation = part(Part::kValidation, "validation", 1);
  return report;
}

}  // namespace retort::data
