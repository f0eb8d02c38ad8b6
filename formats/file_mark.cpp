#include "formats/file_mark.h"

#include "core/error.h"
#include "core/input_file.h"

namespace retort::formats {

std::string first_bytes(const Path& path, size_t count) {
  std::string bytes(count, '\0');
  try {
    bytes.resize(InputFile(path).read(0, std::as_writable_bytes(std::span(bytes))));
  } catch (const IoError&) {
    return "";
  }
  return bytes;
}

bool is_gguf(const Path& path) { return first_bytes(path, 4) == "GGUF"; }

}  // namespace retort::formats
