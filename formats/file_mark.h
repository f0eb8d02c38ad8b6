// What a file begins with: what it is, is told by its first bytes and never by its name. A file that is gone,
// or cannot be read, begins with nothing. Any thread.
#pragma once

#include <string>

#include "core/file.h"

namespace retort::formats {

std::string first_bytes(const Path& path, size_t count);  // fewer of a shorter file
bool is_gguf(const Path& path);

}  // namespace retort::formats
