// Tables, separated by commas and by tabs.
#include "data/records.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void csv(Bytes input) {
  const Path path = put(folder("csv") / "rows.csv", input);
  for (const auto open : {data::open_csv, data::open_tsv})
    accepts<DataError>(path.string(), [&] {
      const auto reader = open(path, {"text"});
      for (data::Record record; reader->next(record);) reader->consumed();
    });
}

}  // namespace retort::fuzz
