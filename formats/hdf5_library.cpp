#include "formats/hdf5_library.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "core/digest.h"

namespace retort::formats {
namespace {

// Lengths first, so that no two lists read alike.
void add(Digest& digest, std::string_view text) {
  const uint64_t length = text.size();
  digest.add(std::as_bytes(std::span(&length, 1)));
  digest.add(as_bytes(text));
}
template <class T>
requires std::is_arithmetic_v<T>
void add(Digest& digest, T value) { digest.add(std::as_bytes(std::span(&value, 1))); }

std::mutex& library_mutex() {
  static std::mutex mutex;  // of the library's own global state
  return mutex;
}

}  // namespace

Hdf5Lock::Hdf5Lock() : lock_(library_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

std::string hdf5_message() {
  std::vector<std::string> causes;
  const auto collect = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    auto& texts = *static_cast<std::vector<std::string>*>(out);
    if (error->desc != nullptr && texts.size() < 3 &&
        std::find(texts.begin(), texts.end(), error->desc) == texts.end())
      texts.emplace_back(error->desc);
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &causes);
  return causes.empty() ? "HDF5 gives no reason" : fmt::format("{}", fmt::join(causes, "; "));
}

Hdf5Handle hdf5_file_type(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::U8:
      return {H5Tcopy(H5T_STD_U8LE), H5Tclose};
    case Hdf5Type::U16:
      return {H5Tcopy(H5T_STD_U16LE), H5Tclose};
    case Hdf5Type::U32:
      return {H5Tcopy(H5T_STD_U32LE), H5Tclose};
    case Hdf5Type::U64:
      return {H5Tcopy(H5T_STD_U64LE), H5Tclose};
    case Hdf5Type::F32:
      return {H5Tcopy(H5T_IEEE_F32LE), H5Tclose};
    case Hdf5Type::F16:
      break;
  }
  // The library has no half: sign at bit 15, 5 bits of exponent at 10 with bias 15, 10 of mantissa (h5py's
  // float16).
  Hdf5Handle half(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  for (const herr_t result :
       {H5Tset_fields(half, 15, 10, 5, 0, 10), H5Tset_size(half, 2), H5Tset_ebias(half, 15)})
    hdf5_ok<InternalError>(result, "[hdf5]", "describe a half");
  return half;
}

int64_t hdf5_type_bytes(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::U8:
      return 1;
    case Hdf5Type::U16:
    case Hdf5Type::F16:
      return 2;
    case Hdf5Type::U32:
    case Hdf5Type::F32:
      return 4;
    case Hdf5Type::U64:
      return 8;
  }
  RETORT_ASSERT(false);
}

uint64_t hdf5_digest(const std::map<std::string, Hdf5Attribute>& attributes,
                     const std::map<std::string, Hdf5File::Dataset>& datasets) {
  Digest digest;
  for (const auto& [name, value] : attributes) {
    add(digest, name);
    add(digest, static_cast<uint64_t>(value.index()));
    std::visit([&](const auto& v) { add(digest, v); }, value);
  }
  for (const auto& [name, dataset] : datasets) {
    add(digest, name);
    add(digest, static_cast<uint64_t>(dataset.type));
    add(digest, dataset.size);
  }
  return digest.value();
}

}  // namespace retort::formats
