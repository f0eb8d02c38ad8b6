#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "formats/hdf5_library.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

constexpr std::string_view kWhere = "[hdf5 writer]";
constexpr size_t kGrowth = size_t{16} << 20;  // of the image in memory
// Every object starts on a multiple of this, so that a dataset can be read where it is mapped.
constexpr hsize_t kAlignment = 8;

template <class Result>
Result ok(Result result, std::string_view doing) {
  return hdf5_ok<IoError>(result, kWhere, doing);
}

Hdf5Handle create_in_memory(const std::string& name) {
  const Hdf5Handle access(ok(H5Pcreate(H5P_FILE_ACCESS), "make properties"), H5Pclose);
  const Hdf5Handle creation(ok(H5Pcreate(H5P_FILE_CREATE), "make properties"), H5Pclose);
  ok(H5Pset_fapl_core(access, kGrowth, false), "choose the core driver");
  ok(H5Pset_alignment(access, 1, kAlignment), "align");
  // The default (oldest) layout: newer superblocks carry a checksum, and H5Fget_file_image of 1.10.8 clears
  // their status flags without rebuilding it, which leaves an image that cannot be opened.
  ok(H5Pset_obj_track_times(creation, false), "leave times out");  // equal content, equal bytes
  return {ok(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, creation, access), "begin an image"), H5Fclose};
}

void put_attribute(hid_t file, const std::string& name, hid_t file_type, hid_t memory_type,
                   const void* value) {
  const Hdf5Handle scalar(ok(H5Screate(H5S_SCALAR), "make a scalar"), H5Sclose);
  const Hdf5Handle attribute(ok(H5Acreate2(file, name.c_str(), file_type, scalar, H5P_DEFAULT, H5P_DEFAULT),
                                fmt::format("make the attribute {}", shown(name))),
                             H5Aclose);
  ok(H5Awrite(attribute, memory_type, value), fmt::format("set the attribute {}", shown(name)));
}

void put_text(hid_t file, const std::string& name, const std::string& text) {
  check(text.find('\0') == text.npos, "{} text must hold no NUL, attribute {}", kWhere, shown(name));
  const Hdf5Handle type(ok(H5Tcopy(H5T_C_S1), "make a text type"), H5Tclose);
  ok(H5Tset_size(type, std::max<size_t>(1, text.size())), "size a text type");  // no text of 0 bytes in HDF5
  ok(H5Tset_strpad(type, H5T_STR_NULLPAD), "pad a text type");
  ok(H5Tset_cset(type, H5T_CSET_UTF8), "mark a text type");
  put_attribute(file, name, type, type, text.c_str());
}

void put_value(hid_t file, const std::string& name, const Hdf5Attribute& value) {
  if (const auto* v = std::get_if<int64_t>(&value))
    put_attribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, v);
  else if (const auto* v = std::get_if<uint64_t>(&value))
    put_attribute(file, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, v);
  else if (const auto* v = std::get_if<double>(&value))
    put_attribute(file, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, v);
  else
    put_text(file, name, std::get<std::string>(value));
}

}  // namespace

struct Hdf5Writer::State {
  Hdf5Handle file;
  std::set<std::string> attributes;
  std::map<std::string, Hdf5Extent> datasets;  // where their bytes lie in the image
  bool written = false;

  ~State() {
    const Hdf5Lock lock;
    file = Hdf5Handle();
  }
};

Hdf5Writer::Hdf5Writer() : state_(std::make_unique<State>()) {
  const Hdf5Lock lock;
  // The driver tells open images apart by their names.
  state_->file = create_in_memory(fmt::format("retort-image-{}", fmt::ptr(state_.get())));
}

Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::attribute(std::string_view name, const Hdf5Attribute& value) {
  const std::string key(name);
  check(!state_->written, "{} nothing can be added after write(), got attribute {}", kWhere, shown(key));
  check(!key.empty() && !state_->attributes.contains(key), "{} attributes must be set once, got {}", kWhere,
        shown(key));
  const Hdf5Lock lock;
  put_value(state_->file, key, value);
  state_->attributes.insert(key);
}

void Hdf5Writer::dataset(std::string_view name, Hdf5Type type, std::span<const std::byte> bytes) {
  dataset(name, type, std::span(&bytes, 1));
}

void Hdf5Writer::dataset(std::string_view name, Hdf5Type type,
                         std::span<const std::span<const std::byte>> parts) {
  const std::string key(name);
  const auto element = static_cast<size_t>(hdf5_type_bytes(type));
  check(!state_->written, "{} nothing can be added after write(), got dataset {}", kWhere, shown(key));
  check(!key.empty() && key != "." && key.find('/') == key.npos && !state_->datasets.contains(key),
        "{} dataset names must be plain and unique, got {}", kWhere, shown(key));
  hsize_t total = 0;
  for (const auto part : parts) {
    check(part.size() % element == 0, "{} parts of {} must hold whole elements of {} bytes, got {} bytes",
          kWhere, shown(key), element, part.size());
    total += part.size() / element;
  }
  const std::string doing = "write the dataset " + shown(key);
  const Hdf5Lock lock;
  const Hdf5Handle file_type = hdf5_file_type(type);
  const Hdf5Handle space(ok(H5Screate_simple(1, &total, nullptr), doing), H5Sclose);
  const Hdf5Handle layout(ok(H5Pcreate(H5P_DATASET_CREATE), doing), H5Pclose);
  ok(H5Pset_layout(layout, H5D_CONTIGUOUS), doing);
  ok(H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY), doing);
  ok(H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER), doing);
  ok(H5Pset_obj_track_times(layout, false), doing);
  const Hdf5Handle dataset(
      ok(H5Dcreate2(state_->file, key.c_str(), file_type, space, H5P_DEFAULT, layout, H5P_DEFAULT), doing),
      H5Dclose);
  hsize_t begin = 0;
  for (const auto part : parts) {
    const hsize_t count = part.size() / element;
    if (count == 0) continue;
    const Hdf5Handle memory(ok(H5Screate_simple(1, &count, nullptr), doing), H5Sclose);
    ok(H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &count, nullptr), doing);
    ok(H5Dwrite(dataset, file_type, memory, space, H5P_DEFAULT, part.data()), doing);
    begin += count;
  }
  const haddr_t offset = total == 0 ? 0 : H5Dget_offset(dataset);  // nowhere, when it has no bytes
  check<InternalError>(offset != HADDR_UNDEF, "{} {} has no place", kWhere, shown(key));
  state_->datasets.emplace(key, Hdf5Extent{offset, offset + total * element});
}

void Hdf5Writer::write(FileSystem& files, const Path& path) {
  state_->written = true;
  std::vector<Hdf5Extent> datasets;
  for (const auto& [name, extent] : state_->datasets) datasets.push_back(extent);
  std::vector<std::byte> image;
  {
    const Hdf5Lock lock;
    ok(H5Fflush(state_->file, H5F_SCOPE_GLOBAL), "finish the image");
    image.resize(static_cast<size_t>(ok(H5Fget_file_image(state_->file, nullptr, 0), "size the image")));
    ok(H5Fget_file_image(state_->file, image.data(), image.size()), "take the image");
  }
  hdf5_seal(image, std::move(datasets));
  write_durably(files, path, image);
}

}  // namespace retort::formats
