// The table of record formats. A new one is a file and a row.
#include "data/records.h"

#include "core/nearest.h"

namespace retort::data {

const Registry<RecordFormat>& record_formats() {
  static const Registry<RecordFormat> table("format of documents",
                                            {{"jsonl", {".jsonl", ".ndjson"}, open_json_lines},
                                             {"json", {".json"}, open_json},
                                             {"csv", {".csv"}, open_csv},
                                             {"tsv", {".tsv"}, open_tsv},
                                             {"parquet", {".parquet"}, open_parquet}});
  return table;
}

void demand_columns(const std::string& where, const std::vector<std::string>& fields,
                    const std::vector<std::string>& names) {
  for (const std::string& field : fields)
    check<DataError>(std::find(names.begin(), names.end(), field) != names.end(),
                     "{}: column \"{}\" is missing{} (columns: {})", where, field, did_you_mean(field, names),
                     fmt::join(names, ", "));
}

}  // namespace retort::data
