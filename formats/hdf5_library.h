// What the HDF5 writer and reader share: the library's lock, handles that close themselves, its error text,
// and the table of element types. Only for this room's sources.
#pragma once

#include <hdf5.h>

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "formats/hdf5.h"

namespace retort::formats {

// The library keeps one global state and is not thread-safe: every block that calls it holds one of these.
// It also silences the library, which would print its error stack to stderr.
class Hdf5Lock {
 public:
  Hdf5Lock();

 private:
  std::lock_guard<std::mutex> lock_;
};

class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

// What the library says of its last failure, cause first.
std::string hdf5_message();

// A result below zero is a failure: throws E "where: cannot <doing>: <the library's words>".
template <class E, class Result>
Result hdf5_ok(Result result, std::string_view where, std::string_view doing) {
  if (result < 0) fail<E>("{}: cannot {}: {}", where, doing, hdf5_message());
  return result;
}

// The little-endian file type; the caller holds the lock.
Hdf5Handle hdf5_file_type(Hdf5Type type);
inline constexpr Hdf5Type kHdf5Types[] = {Hdf5Type::U8,  Hdf5Type::U16, Hdf5Type::U32,
                                          Hdf5Type::U64, Hdf5Type::F16, Hdf5Type::F32};

// Of what a file says about itself. HDF5's own checksums come with a layout that H5Fget_file_image breaks.
uint64_t hdf5_digest(const std::map<std::string, Hdf5Attribute>& attributes,
                     const std::map<std::string, Hdf5File::Dataset>& datasets);
inline constexpr const char* kHdf5Digest = "retort_digest";  // persistent

}  // namespace retort::formats
