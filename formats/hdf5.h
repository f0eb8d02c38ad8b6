// HDF5 for arrays that are read at random: contiguous, unfiltered datasets, so that a dataset is a range of
// the file and is read through a mapping (14 times faster than H5Dread; docs/formats.md).
// Writing: the library builds the image in memory (core driver) and our durable writer puts it on disk,
// because HDF5 itself leaves an unreadable file after a crash and crashes after a full disk.
// Reading: offsets, class, type and size are checked against the file's size. HDF5 1.10.8 predates fixes for
// hostile files: open only files that Retort wrote. A seal after the library's part (XXH3-64 of all but the
// datasets' bytes, hdf5_library.h) is checked before the library reads any of it: rot is an error and no
// crash. Digests of the datasets' bytes are the caller's. Equal content gives equal bytes: no times are
// stored. A dataset starts on a multiple of 8. Throws DataError, IoError; ShapeError for a duplicate or
// malformed name. The library has one global state: all calls here are serialised by a lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/file.h"

namespace retort::formats {

enum class Hdf5Type { U8, U16, U32, U64, F16, F32 };
int64_t hdf5_type_bytes(Hdf5Type type);

using Hdf5Attribute = std::variant<int64_t, uint64_t, double, std::string>;

// Collects datasets and root attributes and writes them as one file. Bytes are copied at the call; the image
// and its copy are in memory while write() runs: up to 1-2 GiB a file. write() may be tried again after an
// error; nothing can be added after it.
class Hdf5Writer {
 public:
  Hdf5Writer();
  ~Hdf5Writer();
  void attribute(std::string_view name, const Hdf5Attribute& value);
  // `parts` are the dataset's bytes in order (they need not be joined first).
  void dataset(std::string_view name, Hdf5Type type, std::span<const std::span<const std::byte>> parts);
  void dataset(std::string_view name, Hdf5Type type, std::span<const std::byte> bytes);
  void write(FileSystem& files, const Path& path);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A file whose 1-D datasets are ranges of one mapping.
class Hdf5File {
 public:
  explicit Hdf5File(const Path& path);
  const Path& path() const;
  const std::map<std::string, Hdf5Attribute>& attributes() const;
  int64_t integer(std::string_view attribute) const;  // DataError when missing or of another kind
  std::string text(std::string_view attribute) const;
  struct Dataset {
    Hdf5Type type;
    int64_t size;  // elements
    std::span<const std::byte> bytes;
  };
  const std::map<std::string, Dataset>& datasets() const;
  const Dataset& dataset(std::string_view name) const;  // DataError when missing
  template <class T>
  std::span<const T> values(std::string_view name) const {  // checks the element size
    const Dataset& d = checked(name, sizeof(T));
    return {reinterpret_cast<const T*>(d.bytes.data()), static_cast<size_t>(d.size)};
  }

 private:
  const Dataset& checked(std::string_view name, size_t element_bytes) const;
  struct Content;
  std::shared_ptr<const Content> content_;
};

}  // namespace retort::formats
