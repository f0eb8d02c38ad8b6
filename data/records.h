// Records out of files: rows with named fields, one after another, in bounded memory.
//
//   jsonl     one JSON object a line; empty lines are skipped
//   json      one array of objects; the file is read whole, at most 1 GiB
//   csv, tsv  RFC 4180: a header of names, then rows; fields are text, quoted ones may hold separators, line
//             breaks and doubled quotes. In tsv the separator is a tab. At most 65536 columns
//   parquet   columns of text or booleans, and lists of structs of such (chat messages); with Arrow's library
//             only
//
// All but parquet may be packed (byte_source.h). One thread. Throws IoError and DataError naming file, line
// or row, and the rule, BadRecord where it is one record's; ConfigError for parquet in a build without it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/registry.h"
#include "formats/json.h"

namespace retort::data {

struct Record {
  formats::Json fields;  // an object
  std::string where;     // "file:17" (a line) or "file row 17", from 1
};

// One record is malformed: the next call continues after it.
struct BadRecord : DataError {
  using DataError::DataError;
};

class RecordReader {
 public:
  virtual ~RecordReader() = default;
  virtual bool next(Record& record) = 0;  // false at the end
  virtual uint64_t consumed() const = 0;  // bytes of the file taken so far: for progress
};

struct RecordFormat {
  std::string name;
  std::vector<std::string> endings;  // of file names, the packing's own taken off
  // `fields`: the ones that will be asked for; a table without one of them is refused on opening.
  std::unique_ptr<RecordReader> (*open)(const Path& path, const std::vector<std::string>& fields);
};
const Registry<RecordFormat>& record_formats();

std::unique_ptr<RecordReader> open_json_lines(const Path& path, const std::vector<std::string>& fields);
std::unique_ptr<RecordReader> open_json(const Path& path, const std::vector<std::string>& fields);
std::unique_ptr<RecordReader> open_csv(const Path& path, const std::vector<std::string>& fields);
std::unique_ptr<RecordReader> open_tsv(const Path& path, const std::vector<std::string>& fields);
std::unique_ptr<RecordReader> open_parquet(const Path& path, const std::vector<std::string>& fields);
bool parquet_is_built();

// DataError unless every field is among the names that a table has.
void demand_columns(const std::string& where, const std::vector<std::string>& fields,
                    const std::vector<std::string>& names);

}  // namespace retort::data
