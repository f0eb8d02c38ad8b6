// What the HDF5 writer and reader share: the library's lock, handles that close themselves, its error text,
// the table of element types, and the seal. Only for this room's sources.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

// The seal follows the library's part of a file, so that damage to what a file says about itself is
// found before the library reads it: on a rotten bit 1.10.8 crashes, and its own checksums come with a layout
// that H5Fget_file_image breaks.
//
//   n × { u64 begin, u64 end }   the datasets' bytes, ascending
//   u64 n   u64 XXH3-64 of every byte before it and outside of the datasets   "RTSEAL01"
struct Hdf5Extent {
  uint64_t begin, end;
};
void hdf5_seal(std::vector<std::byte>& image, std::vector<Hdf5Extent> datasets);  // appends it
// The part before a seal that holds (else DataError); all of it where there is none.
std::span<const std::byte> hdf5_unsealed(std::string_view path, std::span<const std::byte> bytes);

}  // namespace retort::formats
