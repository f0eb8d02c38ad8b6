// gzip, Zstandard and xz, unpacked through a window: what comes out has any size.
#include <array>

#include "data/byte_source.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void packed_text(Bytes input) {
  const Path path = put(folder("packed_text") / "text.gz", input);
  accepts<DataError>(path.string(), [&] {
    const auto source = data::open_bytes(path);
    std::array<char, 1 << 16> piece;
    for (uint64_t size = 0; size < uint64_t{1} << 26;) {  // a bomb's first bytes tell as much
      const size_t got = source->read(piece);
      if (got == 0) break;
      size += got;
    }
  });
}

}  // namespace retort::fuzz
