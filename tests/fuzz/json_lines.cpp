// JSON records, as lines and as an array, and the conversations in them.
#include "data/documents.h"
#include "data/records.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void json_lines(Bytes input) {
  const Path path = put(folder("json_lines") / "rows.jsonl", input);
  for (const auto open : {data::open_json_lines, data::open_json})
    accepts<DataError>(path.string(), [&] {
      const auto reader = open(path, {"text"});
      for (data::Record record; reader->next(record);) reader->consumed();
    });
  data::DocumentOptions text, chat;
  text.invalid_utf8 = "replace";
  chat.messages = "messages";
  for (const data::DocumentOptions& options : {text, chat})
    accepts<DataError>(path.string(), [&] {
      const auto reader = data::open_documents(path, options);
      for (data::Document document; reader->next(document);) reader->consumed();
    });
}

}  // namespace retort::fuzz
