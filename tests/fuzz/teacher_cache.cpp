#include "distill/teacher_cache.h"

#include "tests/fuzz/hdf5_text.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void teacher_cache(Bytes input) {
  const Path directory = folder("teacher_cache");
  if (!write_hdf5(directory / "block-00000.h5", input)) return;
  accepts<DataError>(directory.string(), [&] {
    const distill::TeacherCache cache(directory);
    cache.labels();
    cache.bytes();
    const int64_t tokens = std::min<int64_t>(cache.facts().tokens, 64);
    accepts<DataError>(directory.string(), [&] { cache.read(at::arange(tokens, at::kLong)); });
    accepts<DataError>(directory.string(), [&] { cache.read(at::arange(tokens, at::kLong).flip(0)); });
    accepts<DataError>(directory.string(), [&] { cache.verify(); });
  });
}

}  // namespace retort::fuzz
