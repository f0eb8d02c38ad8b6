// The bytes of a file from its start: plain, or unpacked when it begins as gzip (RFC 1952), Zstandard
// (RFC 8878) or xz does; the name does not matter. Members and frames that follow one another are one text.
// Holds a window of at most 1 MiB of each side; the unpacked size need not be known. A file that becomes
// shorter meanwhile ends where it then does. One thread.
// Throws IoError for a file that cannot be read and DataError, naming file and place, for damaged or
// truncated packing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/file.h"

namespace retort::data {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual size_t read(std::span<char> out) = 0;  // bytes written to out; 0 only at the end
  virtual uint64_t consumed() const = 0;         // bytes of the file taken so far: for progress
};

std::unique_ptr<ByteSource> open_bytes(const Path& path);
std::unique_ptr<ByteSource> open_packed_bytes(const Path& path);  // as they are, whatever they begin as

// Lines of a source, without their "\n" or "\r\n".
class LineReader {
 public:
  static constexpr size_t kLongest = size_t{1} << 28;  // bytes of a line: DataError beyond
  LineReader(const Path& path);
  bool next(std::string& line);               // false at the end; an empty last line is none
  int64_t number() const { return number_; }  // of the last line, from 1
  std::string where() const;                  // "file:17"
  uint64_t consumed() const { return source_->consumed(); }

 private:
  bool fill();
  std::string path_;
  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t at_ = 0;
  int64_t number_ = 0;
};

}  // namespace retort::data
