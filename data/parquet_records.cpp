// Rows of a Parquet file (https://parquet.apache.org/docs/file-format), read by Arrow's library column by
// column for the fields asked for, a batch of rows at a time. Only here and in no other file does Arrow
// appear.
#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <parquet/arrow/reader.h>
#include <parquet/properties.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "data/records.h"

namespace retort::data {
namespace {

using formats::Json;

constexpr int64_t kBatch = 256;  // rows held at a time

void good(const arrow::Status& status, const std::string& where) {
  check<DataError>(status.ok(), "{}: Arrow could not read it: {}", where,
                   status.ToStringWithoutContextLines());
}
template <class T>
T good(arrow::Result<T>&& result, const std::string& where) {
  good(result.status(), where);
  return std::move(result).ValueUnsafe();
}

Json cell(const arrow::Array& array, int64_t row, const std::string& where);

template <class List>
Json items(const List& list, int64_t row, const std::string& where) {
  Json out = Json::array();
  for (int64_t i = 0; i < list.value_length(row); ++i)
    out.push_back(cell(*list.values(), list.value_offset(row) + i, where));
  return out;
}

// A cell as JSON: text, null, lists and structs of such.
Json cell(const arrow::Array& array, int64_t row, const std::string& where) {
  if (array.IsNull(row)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return static_cast<const arrow::BinaryArray&>(array).GetString(row);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return static_cast<const arrow::LargeBinaryArray&>(array).GetString(row);
    case arrow::Type::BOOL:
      return static_cast<const arrow::BooleanArray&>(array).Value(row);
    case arrow::Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return cell(*coded.dictionary(), coded.GetValueIndex(row), where);
    }
    case arrow::Type::LIST:
      return items(static_cast<const arrow::ListArray&>(array), row, where);
    case arrow::Type::LARGE_LIST:
      return items(static_cast<const arrow::LargeListArray&>(array), row, where);
    case arrow::Type::STRUCT: {
      const auto& fields = static_cast<const arrow::StructArray&>(array);
      Json out = Json::object();
      for (int i = 0; i < fields.num_fields(); ++i)
        out[fields.struct_type()->field(i)->name()] = cell(*fields.field(i), row, where);
      return out;
    }
    default:
      fail<DataError>("{}: a column must hold text, booleans, or lists of structs of such, got {}", where,
                      array.type()->ToString());
  }
}

class Parquet final : public RecordReader {
 public:
  Parquet(const Path& path, const std::vector<std::string>& fields)
      : path_(path.string()), bytes_(std::filesystem::file_size(path)) {
    auto file = good(arrow::io::ReadableFile::Open(path_), path_);
    parquet::ArrowReaderProperties properties;
    properties.set_batch_size(kBatch);
    properties.set_use_threads(false);
    properties.set_pre_buffer(false);  // would read ahead on threads of its own
    parquet::arrow::FileReaderBuilder builder;
    good(builder.Open(std::move(file)), path_);
    reader_ = good(builder.properties(properties)->Build(), path_);
    std::shared_ptr<arrow::Schema> schema;
    good(reader_->GetSchema(&schema), path_);
    demand_columns(path_, fields, schema->field_names());
    rows_ = reader_->parquet_reader()->metadata()->num_rows();
    batches_ = good(reader_->GetRecordBatchReader(all_groups(), leaves_of(fields)), path_);
  }

  bool next(Record& record) override {
    while (batch_ == nullptr || at_ == batch_->num_rows()) {
      good(batches_->ReadNext(&batch_), fmt::format("{} after row {}", path_, done_));
      at_ = 0;
      if (batch_ == nullptr) return false;
      // Lengths and offsets inside a file are a stranger's word.
      good(batch_->ValidateFull(), fmt::format("{} after row {}", path_, done_));
    }
    record.where = fmt::format("{} row {}", path_, ++done_);
    record.fields = Json::object();
    for (int i = 0; i < batch_->num_columns(); ++i)
      record.fields[batch_->column_name(i)] = cell(
          *batch_->column(i), at_, fmt::format("{} column \"{}\"", record.where, batch_->column_name(i)));
    ++at_;
    return true;
  }
  uint64_t consumed() const override {
    return rows_ == 0 ? bytes_
                      : static_cast<uint64_t>(static_cast<double>(bytes_) * static_cast<double>(done_) /
                                              static_cast<double>(rows_));
  }

 private:
  std::vector<int> all_groups() const {
    std::vector<int> groups(static_cast<size_t>(reader_->num_row_groups()));
    for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
    return groups;
  }
  // A column of structs is several leaves; these are the leaves below the fields.
  std::vector<int> leaves_of(const std::vector<std::string>& fields) const {
    const parquet::SchemaDescriptor& schema = *reader_->parquet_reader()->metadata()->schema();
    std::vector<int> out;
    for (int leaf = 0; leaf < schema.num_columns(); ++leaf)
      if (std::find(fields.begin(), fields.end(), schema.GetColumnRoot(leaf)->name()) != fields.end())
        out.push_back(leaf);
    return out;
  }

  std::string path_;
  uint64_t bytes_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  int64_t rows_ = 0, at_ = 0, done_ = 0;
};

}  // namespace

bool parquet_is_built() { return true; }

std::unique_ptr<RecordReader> open_parquet(const Path& path, const std::vector<std::string>& fields) {
  check<IoError>(std::filesystem::is_regular_file(path), "{}: no such file", path.string());
  try {
    return std::make_unique<Parquet>(path, fields);
  } catch (const parquet::ParquetException& error) {
    fail<DataError>("{}: Arrow could not read it: {}", path.string(), error.what());
  }
}

}  // namespace retort::data
