#include "artifacts/out_path.h"

#include <unistd.h>

#include "core/errno_text.h"
#include "core/error.h"

namespace retort::artifacts {
namespace {

namespace fs = std::filesystem;

// The directory above a path; of a folder, the nearest one that is there.
Path above(const Path& out, bool is_file) {
  std::error_code ignored;
  Path directory = fs::absolute(out).lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();  // "out/"
  do directory = directory.parent_path();
  while (!is_file && !fs::exists(directory, ignored) && directory.has_relative_path());
  return directory;
}

}  // namespace

void probe_out(const char* option, const Path& out, bool is_file, const Path& source) {
  std::error_code ignored;
  check<ConfigError>(!out.empty(), "{} must name a {}, got none", option, is_file ? "file" : "folder");
  check<ConfigError>(!is_file || !fs::is_directory(out, ignored), "{} {}: must be a file, and is a directory",
                     option, out.string());
  check<ConfigError>(!fs::equivalent(out, source, ignored),
                     "{} {}: is a file that is read; name another place", option, out.string());
  const Path directory = above(out, is_file);
  const bool other = fs::exists(directory, ignored) && !fs::is_directory(directory, ignored);
  if (!other && ::access(directory.c_str(), W_OK | X_OK) == 0) return;
  const std::string why = other ? "not a directory" : errno_text();
  fail<IoError>("{} {}: {} cannot be written to: {}", option, out.string(), directory.string(), why);
}

}  // namespace retort::artifacts
