#include "formats/hdf5_library.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "core/digest.h"
#include "core/file.h"

namespace retort::formats {
namespace {

constexpr std::string_view kSeal = "RTSEAL01";  // persistent
constexpr size_t kExtent = 16, kTail = 24;      // bytes: a dataset's; count, digest and name

uint64_t number_at(std::span<const std::byte> bytes, size_t at) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
void append(std::vector<std::byte>& out, uint64_t value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// Of the bytes that no dataset has.
uint64_t digest_outside(std::span<const std::byte> bytes, std::span<const Hdf5Extent> datasets) {
  Digest digest;
  uint64_t at = 0;
  for (const Hdf5Extent& dataset : datasets) {
    digest.add(bytes.subspan(at, dataset.begin - at));
    at = dataset.end;
  }
  digest.add(bytes.subspan(at));
  return digest.value();
}

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

void hdf5_seal(std::vector<std::byte>& image, std::vector<Hdf5Extent> datasets) {
  std::sort(datasets.begin(), datasets.end(), [](auto& a, auto& b) { return a.begin < b.begin; });
  for (const Hdf5Extent& dataset : datasets) append(image, dataset.begin), append(image, dataset.end);
  append(image, datasets.size());
  append(image, digest_outside(image, datasets));
  const auto name = as_bytes(kSeal);
  image.insert(image.end(), name.begin(), name.end());
}

std::span<const std::byte> hdf5_unsealed(std::string_view path, std::span<const std::byte> bytes) {
  const size_t size = bytes.size();
  if (size < kTail || std::memcmp(bytes.data() + size - kSeal.size(), kSeal.data(), kSeal.size()) != 0)
    return bytes;
  const auto sound = [&](bool holds) {
    check<DataError>(holds, "{}: does not match its seal: the file is damaged", path);
  };
  const uint64_t count = number_at(bytes, size - kTail);
  sound(count <= (size - kTail) / kExtent);
  const size_t end = size - kTail - count * kExtent;
  std::vector<Hdf5Extent> datasets;
  uint64_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    datasets.push_back({number_at(bytes, end + i * kExtent), number_at(bytes, end + i * kExtent + 8)});
    sound(datasets.back().begin >= at && datasets.back().end >= datasets.back().begin &&
          datasets.back().end <= end);
    at = datasets.back().end;
  }
  sound(digest_outside(bytes.first(size - 16), datasets) == number_at(bytes, size - 16));
  return bytes.first(end);
}

}  // namespace retort::formats
