// Rows of text with a header: CSV by RFC 4180, and the same with tabs.
#include <set>

#include "core/error.h"
#include "data/byte_source.h"
#include "data/records.h"

namespace retort::data {
namespace {

class Table final : public RecordReader {
 public:
  Table(const Path& path, char separator, const std::vector<std::string>& fields)
      : path_(path.string()), separator_(separator), source_(open_bytes(path)) {
    check<DataError>(row(names_, kMostColumns), "{}: a table must begin with a header, got an empty file",
                     path_);
    in_header_ = false;
    if (names_[0].starts_with("\xef\xbb\xbf")) names_[0].erase(0, 3);  // a byte order mark
    std::set<std::string> once;
    for (const std::string& name : names_)
      check<DataError>(once.insert(name).second, "{}:1: column \"{}\" is there twice", path_, name);
    demand_columns(path_ + ":1", fields, names_);
  }

  bool next(Record& record) override {
    std::vector<std::string> values;
    do {
      if (!whole_row(values)) return false;
    } while (values.size() == 1 && values[0].empty() && names_.size() > 1);  // an empty line
    record.where = fmt::format("{}:{}", path_, row_line_);
    check<BadRecord>(values.size() == names_.size(), "{}: a row must have {} fields, got {}", record.where,
                     names_.size(), values.size());
    record.fields = formats::Json::object();
    for (size_t i = 0; i < values.size(); ++i) record.fields[names_[i]] = std::move(values[i]);
    return true;
  }
  uint64_t consumed() const override { return source_->consumed(); }

 private:
  static constexpr size_t kMostColumns = 65536;
  static constexpr int kEnd = -1;
  int peek() {
    if (at_ == buffer_.size()) {
      buffer_.resize(size_t{1} << 18);
      buffer_.resize(source_->read(buffer_));
      at_ = 0;
      if (buffer_.empty()) return kEnd;
    }
    return static_cast<unsigned char>(buffer_[at_]);
  }
  int take() {
    const int c = peek();
    if (c != kEnd) ++at_;
    if (c == '\n') ++line_;
    return last_ = c;
  }

  // After a row that its error cut short, reading continues with the next line.
  bool whole_row(std::vector<std::string>& values) {
    try {
      return row(values, names_.size());
    } catch (const BadRecord&) {
      for (int c = last_; c != '\n' && c != kEnd;) c = take();
      throw;
    }
  }

  // One row of at most `most` fields: an empty one takes a byte of the file and far more here. False at the
  // end of the file.
  bool row(std::vector<std::string>& values, size_t most) {
    values.clear();
    if (peek() == kEnd) return false;
    row_line_ = line_;
    size_t bytes = 0;
    while (true) {
      check<BadRecord>(values.size() < most, "{}:{}: a row must have at most {} fields, got more", path_,
                       row_line_, most);
      const int after = field(values.emplace_back());
      bytes += values.back().size();
      check<BadRecord>(bytes <= LineReader::kLongest, "{}:{}: a row must be at most {} bytes", path_,
                       row_line_, LineReader::kLongest);
      if (after != separator_) return true;
    }
  }

  // One field, and what ended it: the separator, '\n' or the end.
  int field(std::string& out) {
    if (peek() == '"') return quoted(out);
    while (true) {
      const int c = take();
      if (c == separator_ || c == '\n' || c == kEnd) {
        if (c != separator_ && out.ends_with('\r')) out.pop_back();
        return c;
      }
      check<BadRecord>(c != '\r' || !in_header_ || peek() == '\n' || peek() == kEnd,
                       "{}:1: lines end in a carriage return alone, as old Macs wrote them; convert them (tr "
                       "'\\r' '\\n')",
                       path_);
      check<BadRecord>(c != '"' || separator_ == '\t',
                       "{}:{}: a quote must open its field or be doubled within quotes, got one inside",
                       path_, line_);
      out += static_cast<char>(c);
      bound(out, line_);
    }
  }

  int quoted(std::string& out) {
    const int64_t opened = line_;
    take();
    while (true) {
      int c = take();
      check<BadRecord>(c != kEnd, "{}:{}: a quoted field must be closed, got the end of the file", path_,
                       opened);
      if (c == '"' && peek() != '"') {
        c = take();
        if (c == '\r' && (peek() == '\n' || peek() == kEnd)) c = take();
        check<BadRecord>(c == separator_ || c == '\n' || c == kEnd,
                         "{}:{}: a closing quote must end its field, got \"{}\" after it", path_, line_,
                         static_cast<char>(c));
        return c;
      }
      if (c == '"') take();  // a doubled one
      out += static_cast<char>(c);
      bound(out, opened);
    }
  }
  void bound(const std::string& out, int64_t line) const {
    check<BadRecord>(out.size() <= LineReader::kLongest, "{}:{}: a field must be at most {} bytes", path_,
                     line, LineReader::kLongest);
  }

  std::string path_;
  char separator_;
  std::unique_ptr<ByteSource> source_;
  std::vector<std::string> names_;
  std::string buffer_;
  size_t at_ = 0;
  int64_t line_ = 1, row_line_ = 1;
  bool in_header_ = true;
  int last_ = 0;  // that was taken
};

}  // namespace

std::unique_ptr<RecordReader> open_csv(const Path& path, const std::vector<std::string>& fields) {
  return std::make_unique<Table>(path, ',', fields);
}
std::unique_ptr<RecordReader> open_tsv(const Path& path, const std::vector<std::string>& fields) {
  return std::make_unique<Table>(path, '\t', fields);
}

}  // namespace retort::data
