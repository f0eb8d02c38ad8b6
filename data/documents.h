// Files of text as documents, which a tokenizer's separator divides. A document is a record's text field, a conversation
// (chat messages, or prompt and response fields) in a chat template, a rated answer, either answer of a pair
// (data/preferences.h), or the text between two marks of a file. The same bytes give the same documents in the same
// order. One thread. Throws ConfigError for options, IoError, and DataError naming file, line or row, and the rule.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/section.h"
#include "data/templates/conversation.h"
#include "data/token_shards.h"

namespace retort::data {

struct DocumentOptions {
  std::string format = "auto";             // by the file's name; text when that says nothing
  std::string field = "text";              // of a record, when it is no conversation
  std::string messages = {};               // a field of chat messages
  std::vector<std::string> prompt = {};    // fields, those that are not empty joined by an empty line
  std::string response = {};               // a field
  std::string chosen = {}, rejected = {};  // fields of a pair of answers
  std::string label = {};                  // a field that says whether response is good
  std::string chat_template = "alpaca";    // of conversations: a shipped one's name, or the path of another
  std::string chat_date = {};              // that it is told
  std::string split = {};                  // ends a document of a text file; empty: a file is one
  std::string invalid_utf8 = "keep";       // keep | replace | refuse
  std::string bad_records = "refuse";      // refuse | skip
  bool conversations() const { return !messages.empty() || !response.empty() || !chosen.empty(); }
  ShardKind kind() const;     // what shards its documents make
  void check_fields() const;  // ConfigError for fields that do not go together
  void describe(Section& s);
};

struct Document {
  std::vector<Span> spans;  // none is empty
  std::string where;
  size_t second = 0;  // of a pair: the span that the rejected answer's document begins with; 0: of no pair
  bool bad = false;   // of rated answers
};

// Records that make no document.
struct LeftOut {
  static constexpr size_t kNamed = 10;
  int64_t empty = 0, malformed = 0;
  std::vector<std::string> first = {};  // of the malformed: where, and the rule
  void add(const LeftOut& other);
};

class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  virtual bool next(Document& document) = 0;       // false at the end; documents without text are left out
  virtual LeftOut left_out() const { return {}; }  // so far
  virtual uint64_t consumed() const = 0;           // bytes of the file taken so far
};

// "text" or a row of record_formats(), as `options` says or the file's name does.
std::string format_of(const Path& path, const DocumentOptions& options);
// `form` is how conversations are written: null for what the options name, without a tokenizer's help.
std::unique_ptr<DocumentReader> open_documents(const Path& path, const DocumentOptions& options,
                                               std::shared_ptr<const ConversationForm> form = nullptr);

}  // namespace retort::data
