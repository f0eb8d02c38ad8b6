#include "data/documents.h"

#include <algorithm>

#include "core/error.h"
#include "data/byte_source.h"
#include "data/messages.h"
#include "data/preferences.h"
#include "data/records.h"
#include "data/templates/shipped.h"
#include "data/tokenizers/utf8.h"

namespace retort::data {
namespace {

using formats::Json;

class RecordDocuments final : public DocumentReader {
 public:
  RecordDocuments(const Path& path, const DocumentOptions& options, const RecordFormat& format,
                  std::shared_ptr<const ConversationForm> form)
      : options_(options), form_(std::move(form)) {
    if (form_ == nullptr && options.conversations())
      form_ = std::make_shared<ConversationForm>(options.chat_template, options.chat_date, nullptr);
    std::vector<std::string> fields = {options.field};
    if (!options.messages.empty()) fields = {options.messages};
    if (!options.response.empty() || !options.chosen.empty()) {
      fields = options.prompt;
      for (const std::string* more : {&options.response, &options.chosen, &options.rejected, &options.label})
        if (!more->empty()) fields.push_back(*more);
    }
    records_ = format.open(path, fields);
  }

  bool next(Document& document) override {
    while (true) {
      try {
        if (!records_->next(record_)) return false;
        read(document);
        if (!document.spans.empty()) return true;
        ++left_out_.empty;
      } catch (const BadRecord& error) {
        if (options_.bad_records == "refuse") throw;
        left_out_.add({0, 1, {error.what()}});
      }
    }
  }
  uint64_t consumed() const override { return records_->consumed(); }
  LeftOut left_out() const override { return left_out_; }

 private:
  // Whatever is wrong with the record is its own fault.
  void read(Document& out) {
    try {
      const bool preference = options_.kind() != ShardKind::kText;
      out = preference ? preference_document(record_.fields, options_, *form_, record_.where)
                       : Document{spans(), record_.where};
      for (Span& span : out.spans) check_utf8(span.text, options_.invalid_utf8, record_.where);
    } catch (const DataError& error) {
      throw BadRecord(error.what());
    }
    std::erase_if(out.spans, [](const Span& span) { return span.text.empty(); });
  }

  std::vector<Span> spans() {
    const Json& fields = record_.fields;
    if (!options_.messages.empty()) {
      const Json& messages = field_of(fields, options_.messages, record_.where);
      if (messages.is_null() || messages.empty()) return {};
      return form_->spans(messages_of(messages, form_->shipped(), record_.where), record_.where);
    }
    if (options_.response.empty()) return {{text_field(fields, options_.field, record_.where), true}};
    std::string prompt;
    for (const std::string& name : options_.prompt) {
      const std::string part = text_field(fields, name, record_.where);
      if (!part.empty()) prompt += (prompt.empty() ? "" : "\n\n") + part;
    }
    const std::string response = text_field(fields, options_.response, record_.where);
    return form_->spans(Json::array({{{"role", "user"}, {"content", prompt}},
                                     {{"role", "assistant"}, {"content", response}}}),
                        record_.where);
  }

  const DocumentOptions options_;
  std::shared_ptr<const ConversationForm> form_;
  std::unique_ptr<RecordReader> records_;
  Record record_;
  LeftOut left_out_;
};

// Text between marks.
class TextDocuments final : public DocumentReader {
 public:
  TextDocuments(const Path& path, const DocumentOptions& options)
      : options_(options), path_(path.string()), source_(open_bytes(path)) {}

  bool next(Document& document) override {
    std::string text;
    do {
      if (!take(text)) return false;
      document.where = fmt::format("{} document {}", path_, ++number_);
    } while (text.empty());
    check_utf8(text, options_.invalid_utf8, document.where);
    document.spans = {{std::move(text), true}};
    return true;
  }
  uint64_t consumed() const override { return source_->consumed(); }

 private:
  bool take(std::string& text) {
    constexpr size_t kPiece = size_t{1} << 20;
    const std::string& mark = options_.split;
    size_t end;
    for (size_t seen = 0; (end = buffer_.find(mark, at_ + seen)) == std::string::npos;) {
      buffer_.erase(0, at_);
      at_ = 0;
      const size_t held = buffer_.size();
      seen = held - std::min(held, mark.size() - 1);  // a mark may lie across two reads
      check<DataError>(held <= LineReader::kLongest,
                       "{}: a document between two marks must be at most {} bytes", path_,
                       LineReader::kLongest);
      buffer_.resize(held + kPiece);
      buffer_.resize(held + source_->read({buffer_.data() + held, kPiece}));
      if (buffer_.size() > held) continue;
      text = std::exchange(buffer_, {});
      return !text.empty();
    }
    text.assign(buffer_, at_, end - at_);
    at_ = end + mark.size();
    return true;
  }

  const DocumentOptions options_;
  std::string path_, buffer_;
  std::unique_ptr<ByteSource> source_;
  size_t at_ = 0;
  int64_t number_ = 0;
};

}  // namespace

void DocumentOptions::describe(Section& s) {
  std::vector<std::string> formats = record_formats().names();
  formats.insert(formats.begin(), {"auto", "text"});
  s.field("format", format, "format of the files; auto: by the ending of the name, text for any other",
          one_of(formats));
  s.field("field", field, "field of a record that is its text");
  s.field("messages", messages,
          "field of a record that is a conversation, a list of messages; only answers are learned");
  s.field(
      "prompt", prompt,
      "fields that make the prompt; used with response, or with chosen and rejected, which begin with the "
      "prompt where this is empty");
  s.field("response", response, "field that is the answer to the prompt; only it is learned");
  s.field("chosen", chosen, "field that is the better of two answers, for a train stage with preference");
  s.field("rejected", rejected, "field that is the worse of two answers; used with chosen");
  s.field(
      "label", label,
      "field that says whether response is a good answer, true or false, for a train stage with preference");
  static const std::string forms =
      fmt::format("form of conversations: {}, a .jinja file, or a model's own, by its folder or GGUF",
                  fmt::join(shipped_templates().names(), ", "));
  s.field("chat_template", chat_template, forms);
  s.field("chat_date", chat_date,
          "date that a model's template is told, YYYY-MM-DD; for those that write it");
  s.field("split", split, "text that ends a document in a text file; empty: a file is one document");
  s.field("invalid_utf8", invalid_utf8, "treatment of bytes that are no UTF-8; replace: by U+FFFD",
          one_of({"keep", "replace", "refuse"}));
  s.field("bad_records", bad_records, "treatment of malformed records; skip: counted, the first ten named",
          one_of({"refuse", "skip"}));
}

void DocumentOptions::check_fields() const {
  check<ConfigError>(messages.empty() || response.empty(),
                     "[documents] messages and response exclude each other, got \"{}\" and \"{}\"", messages,
                     response);
  check<ConfigError>(chosen.empty() == rejected.empty(),
                     "[documents] chosen and rejected must come together");
  if (!chosen.empty())
    return check<ConfigError>(messages.empty() && response.empty() && label.empty(),
                              "[documents] chosen and rejected exclude messages, response and label, got {}",
                              fmt::join(std::vector{messages, response, label}, " "));
  check<ConfigError>(response.empty() == prompt.empty(),
                     "[documents] prompt and response must come together");
  check<ConfigError>(label.empty() || !response.empty(), "[documents] label needs prompt and response");
}

ShardKind DocumentOptions::kind() const {
  if (!chosen.empty()) return ShardKind::kPairs;
  return label.empty() ? ShardKind::kText : ShardKind::kRated;
}

void LeftOut::add(const LeftOut& other) {
  empty += other.empty;
  malformed += other.malformed;
  for (const std::string& one : other.first)
    if (first.size() < kNamed) first.push_back(one);
}

std::string format_of(const Path& path, const DocumentOptions& options) {
  if (options.format != "auto") return options.format;
  Path name = path.filename();
  if (const std::string packing = name.extension().string();
      packing == ".gz" || packing == ".zst" || packing == ".xz")
    name = name.stem();
  for (const RecordFormat& format : record_formats())
    for (const std::string& ending : format.endings)
      if (name.extension() == ending) return format.name;
  return "text";
}

std::unique_ptr<DocumentReader> open_documents(const Path& path, const DocumentOptions& options,
                                               std::shared_ptr<const ConversationForm> form) {
  options.check_fields();
  const std::string format = format_of(path, options);
  if (format != "text")
    return std::make_unique<RecordDocuments>(path, options, record_formats().at(format), std::move(form));
  check<ConfigError>(!options.conversations(),
                     "{}: conversations need records (json, jsonl, csv, parquet), got text", path.string());
  check<ConfigError>(!options.split.empty(), "{}: documents of a text file need the text that splits them",
                     path.string());
  return std::make_unique<TextDocuments>(path, options);
}

}  // namespace retort::data
