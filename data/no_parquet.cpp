// The twin of parquet_records.cpp in a build without Arrow's library.
#include "core/error.h"
#include "data/records.h"

namespace retort::data {

bool parquet_is_built() { return false; }

std::unique_ptr<RecordReader> open_parquet(const Path& path, const std::vector<std::string>&) {
  fail<ConfigError>(
      "{}: parquet needs a build with Arrow's library: run scripts/setup.sh and configure again "
      "(RETORT_PARQUET=ON)",
      path.string());
}

}  // namespace retort::data
