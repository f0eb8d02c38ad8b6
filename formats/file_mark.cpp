#include "formats/file_mark.h"

#include <fstream>

namespace retort::formats {

std::string first_bytes(const Path& path, size_t count) {
  std::string bytes(count, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

bool is_gguf(const Path& path) { return first_bytes(path, 4) == "GGUF"; }

}  // namespace retort::formats
