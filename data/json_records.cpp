// JSON objects, one a line or in one array.
#include "core/error.h"
#include "data/byte_source.h"
#include "data/records.h"

namespace retort::data {
namespace {

class JsonLines final : public RecordReader {
 public:
  explicit JsonLines(const Path& path) : lines_(path) {}

  bool next(Record& record) override {
    do {
      if (!lines_.next(line_)) return false;
    } while (line_.find_first_not_of(" \t") == std::string::npos);
    record.where = lines_.where();
    try {
      record.fields = formats::parse_json(line_, "line");
    } catch (const DataError& error) {  // "line:1:COLUMN: rule"
      const std::string_view what = error.what();
      const bool mac = line_.find('\r') != std::string::npos;
      fail<BadRecord>("{}{}{}", record.where, what.substr(std::string_view("line:1").size()),
                      mac ? "; its lines end in a carriage return alone: convert them (tr '\\r' '\\n')" : "");
    }
    check<BadRecord>(record.fields.is_object(), "{}: a line must be a JSON object, got {}", record.where,
                     record.fields.type_name());
    return true;
  }
  uint64_t consumed() const override { return lines_.consumed(); }

 private:
  LineReader lines_;
  std::string line_;
};

class JsonArray final : public RecordReader {
 public:
  explicit JsonArray(const Path& path) : path_(path.string()) {
    constexpr size_t kLargest = size_t{1} << 30, kPiece = size_t{1} << 20;
    const auto source = open_bytes(path);
    std::string text;
    for (size_t size = 0, got = 1; got > 0; size += got, text.resize(size)) {
      check<DataError>(size <= kLargest, "{}: a JSON array must be at most {} bytes; write a line for each",
                       path_, kLargest);
      text.resize(size + kPiece);
      got = source->read({text.data() + size, kPiece});
    }
    consumed_ = source->consumed();
    rows_ = formats::parse_json(text, path_);
    check<DataError>(rows_.is_array(), "{}: must be an array of objects, got {}", path_, rows_.type_name());
  }

  bool next(Record& record) override {
    if (at_ == rows_.size()) return false;
    record.fields = std::move(rows_[at_++]);
    record.where = fmt::format("{} row {}", path_, at_);
    check<BadRecord>(record.fields.is_object(), "{}: must be an object, got {}", record.where,
                     record.fields.type_name());
    return true;
  }
  uint64_t consumed() const override { return rows_.empty() ? consumed_ : consumed_ * at_ / rows_.size(); }

 private:
  std::string path_;
  formats::Json rows_;
  size_t at_ = 0;
  uint64_t consumed_ = 0;
};

}  // namespace

std::unique_ptr<RecordReader> open_json_lines(const Path& path, const std::vector<std::string>&) {
  return std::make_unique<JsonLines>(path);
}
std::unique_ptr<RecordReader> open_json(const Path& path, const std::vector<std::string>&) {
  return std::make_unique<JsonArray>(path);
}

}  // namespace retort::data
