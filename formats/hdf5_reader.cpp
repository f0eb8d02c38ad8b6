#include <algorithm>
#include <cstring>
#include <limits>

#include "core/nearest.h"
#include "formats/hdf5_library.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n", 8);
constexpr ssize_t kLongestName = 1000;

// One open file, and what every message about it begins with.
struct Reading {
  std::string path;
  std::span<const std::byte> bytes;
  Hdf5Handle file;

  template <class Result>
  Result ok(Result result, std::string_view doing) const {
    return hdf5_ok<DataError>(result, path, doing);
  }
};

// Asks a library function that fills a name into a buffer, twice: for the length, and for the name.
template <class Ask>
std::string read_name(const Reading& in, std::string_view doing, const Ask& ask) {
  const ssize_t length = in.ok(ask(nullptr, size_t{0}), doing);
  check<DataError>(length <= kLongestName, "{}: a name must have at most {} bytes, got {}", in.path,
                   kLongestName, length);
  std::string name(static_cast<size_t>(length), '\0');
  in.ok(ask(name.data(), name.size() + 1), doing);
  return name;
}

Hdf5Type read_type(const Reading& in, hid_t dataset, const std::string& what) {
  const Hdf5Handle type(in.ok(H5Dget_type(dataset), "read the type of " + what), H5Tclose);
  for (const Hdf5Type known : kHdf5Types)
    if (H5Tequal(type, hdf5_file_type(known)) > 0) return known;
  fail<DataError>("{}: {} must hold little-endian u8, u16, u32, u64, f16 or f32", in.path, what);
}

Hdf5File::Dataset read_dataset(const Reading& in, const std::string& name) {
  const std::string what = "dataset " + shown(name);
  H5L_info_t link;
  in.ok(H5Lget_info(in.file, name.c_str(), &link, H5P_DEFAULT), "look up " + what);
  check<DataError>(link.type == H5L_TYPE_HARD, "{}: {} is a link to elsewhere, which is not followed",
                   in.path, what);
  const Hdf5Handle object(in.ok(H5Oopen(in.file, name.c_str(), H5P_DEFAULT), "open " + what), H5Oclose);
  check<DataError>(H5Iget_type(object) == H5I_DATASET,
                   "{}: {} must be a dataset; groups and types are not read", in.path, shown(name));
  const Hdf5Handle space(in.ok(H5Dget_space(object), "read the shape of " + what), H5Sclose);
  check<DataError>(H5Sget_simple_extent_type(space) == H5S_SIMPLE && H5Sget_simple_extent_ndims(space) == 1,
                   "{}: {} must have one dimension", in.path, what);
  hsize_t size = 0;
  in.ok(H5Sget_simple_extent_dims(space, &size, nullptr), "read the shape of " + what);
  const Hdf5Handle layout(in.ok(H5Dget_create_plist(object), "read the layout of " + what), H5Pclose);
  check<DataError>(H5Pget_layout(layout) == H5D_CONTIGUOUS && H5Pget_nfilters(layout) == 0 &&
                       H5Pget_external_count(layout) == 0,
                   "{}: {} must be contiguous, unfiltered and in this file", in.path, what);
  const Hdf5Type type = read_type(in, object, what);
  if (size == 0) return {type, 0, {}};
  const auto element = static_cast<uint64_t>(hdf5_type_bytes(type));
  const haddr_t offset = H5Dget_offset(object);
  check<DataError>(offset != HADDR_UNDEF, "{}: {} was never written", in.path, what);
  check<DataError>(offset <= in.bytes.size() && size <= (in.bytes.size() - offset) / element,
                   "{}: {} claims {} elements of {} bytes at offset {}, but the file has {} bytes", in.path,
                   what, size, element, offset, in.bytes.size());
  return {type, static_cast<int64_t>(size), in.bytes.subspan(offset, size * element)};
}

std::string read_text(const Reading& in, hid_t attribute, hid_t type, const std::string& what) {
  check<DataError>(H5Tis_variable_str(type) == 0, "{}: {} must be text of a fixed length", in.path, what);
  const size_t size = H5Tget_size(type);
  check<DataError>(size <= in.bytes.size(), "{}: {} claims {} bytes, but the file has {}", in.path, what,
                   size, in.bytes.size());
  std::string text(size, '\0');
  in.ok(H5Aread(attribute, type, text.data()), "read " + what);
  text.resize(std::min(text.find_last_not_of('\0') + 1, text.size()));  // npos + 1 is 0
  return text;
}

Hdf5Attribute read_attribute(const Reading& in, hid_t attribute, const std::string& name) {
  const std::string what = "attribute " + shown(name);
  const Hdf5Handle space(in.ok(H5Aget_space(attribute), "read " + what), H5Sclose);
  check<DataError>(H5Sget_simple_extent_type(space) == H5S_SCALAR, "{}: {} must be one value", in.path, what);
  const Hdf5Handle type(in.ok(H5Aget_type(attribute), "read " + what), H5Tclose);
  const H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_STRING) return read_text(in, attribute, type, what);
  const auto value = [&]<class T>(T out, hid_t memory_type) -> Hdf5Attribute {
    in.ok(H5Aread(attribute, memory_type, &out), "read " + what);
    return out;
  };
  check<DataError>((kind == H5T_INTEGER || kind == H5T_FLOAT) && H5Tget_size(type) <= 8,
                   "{}: {} must be an integer, a real number or text", in.path, what);
  if (kind == H5T_FLOAT) return value(double{}, H5T_NATIVE_DOUBLE);
  return H5Tget_sign(type) == H5T_SGN_NONE ? value(uint64_t{}, H5T_NATIVE_UINT64)
                                           : value(int64_t{}, H5T_NATIVE_INT64);
}

std::map<std::string, Hdf5Attribute> read_attributes(const Reading& in) {
  std::map<std::string, Hdf5Attribute> attributes;
  H5O_info_t info;
  in.ok(H5Oget_info2(in.file, &info, H5O_INFO_NUM_ATTRS), "count the attributes");
  for (hsize_t i = 0; i < info.num_attrs; ++i) {
    const Hdf5Handle attribute(
        in.ok(H5Aopen_by_idx(in.file, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT),
              "open an attribute"),
        H5Aclose);
    const std::string name = read_name(in, "read an attribute's name", [&](char* out, size_t size) {
      return H5Aget_name(attribute, size, out);
    });
    attributes.emplace(name, read_attribute(in, attribute, name));
  }
  return attributes;
}

std::map<std::string, Hdf5File::Dataset> read_datasets(const Reading& in) {
  std::map<std::string, Hdf5File::Dataset> datasets;
  H5G_info_t group;
  in.ok(H5Gget_info(in.file, &group), "list the file");
  for (hsize_t i = 0; i < group.nlinks; ++i) {
    const std::string name = read_name(in, "read a dataset's name", [&](char* out, size_t size) {
      return H5Lget_name_by_idx(in.file, ".", H5_INDEX_NAME, H5_ITER_INC, i, out, size, H5P_DEFAULT);
    });
    datasets.emplace(name, read_dataset(in, name));
  }
  return datasets;
}

template <class Map>
[[noreturn]] void fail_missing(const Map& map, std::string_view noun, std::string_view name,
                               const Path& path) {
  std::vector<std::string> known;
  for (const auto& item : map) known.push_back(item.first);
  fail<DataError>("{}: has no {} \"{}\"{}", path.string(), noun, name, did_you_mean(name, known));
}

}  // namespace

struct Hdf5File::Content {
  std::shared_ptr<const MappedFile> file;
  std::map<std::string, Hdf5Attribute> attributes;
  std::map<std::string, Dataset> datasets;

  const Hdf5Attribute& attribute(std::string_view name) const {
    const auto found = attributes.find(std::string(name));
    if (found == attributes.end()) fail_missing(attributes, "attribute", name, file->path());
    return found->second;
  }
};

Hdf5File::Hdf5File(const Path& path) {
  auto content = std::make_shared<Content>();
  content->file = MappedFile::open(path);
  const Hdf5Lock lock;  // outlives every handle below, also when one of them throws
  Reading in{path.string(), content->file->bytes(), {}};
  check<DataError>(in.bytes.size() >= kSignature.size() &&
                       std::memcmp(in.bytes.data(), kSignature.data(), kSignature.size()) == 0,
                   "{}: is not an HDF5 file: it must begin with the bytes 89 48 44 46 0d 0a 1a 0a", in.path);
  in.bytes = hdf5_unsealed(in.path, in.bytes);
  const Hdf5Handle access(in.ok(H5Pcreate(H5P_FILE_ACCESS), "make properties"), H5Pclose);
  // Files appear whole by a rename, and some network file systems have no locks.
  in.ok(H5Pset_file_locking(access, false, true), "do without locks");
  in.file = Hdf5Handle(in.ok(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), "open it as HDF5"), H5Fclose);
  haddr_t size = 0;
  in.ok(H5Fget_eoa(in.file, &size), "read its size");
  check<DataError>(size == in.bytes.size(), "{}: HDF5 sees {} bytes and the mapping {}; is it being written?",
                   in.path, size, in.bytes.size());
  content->attributes = read_attributes(in);
  content->datasets = read_datasets(in);
  content_ = std::move(content);
}

const Path& Hdf5File::path() const { return content_->file->path(); }
const std::map<std::string, Hdf5Attribute>& Hdf5File::attributes() const { return content_->attributes; }
const std::map<std::string, Hdf5File::Dataset>& Hdf5File::datasets() const { return content_->datasets; }

int64_t Hdf5File::integer(std::string_view name) const {
  const Hdf5Attribute& value = content_->attribute(name);
  if (const auto* v = std::get_if<int64_t>(&value)) return *v;
  const auto* v = std::get_if<uint64_t>(&value);
  check<DataError>(v != nullptr && *v <= uint64_t{INT64_MAX},
                   "{}: attribute \"{}\" must be an integer of 63 bits", path().string(), name);
  return static_cast<int64_t>(*v);
}

std::string Hdf5File::text(std::string_view name) const {
  const auto* value = std::get_if<std::string>(&content_->attribute(name));
  check<DataError>(value != nullptr, "{}: attribute \"{}\" must be text", path().string(), name);
  return *value;
}

const Hdf5File::Dataset& Hdf5File::dataset(std::string_view name) const {
  const auto found = content_->datasets.find(std::string(name));
  if (found == content_->datasets.end()) fail_missing(content_->datasets, "dataset", name, path());
  return found->second;
}

const Hdf5File::Dataset& Hdf5File::checked(std::string_view name, size_t element_bytes) const {
  const Dataset& found = dataset(name);
  check<DataError>(static_cast<size_t>(hdf5_type_bytes(found.type)) == element_bytes,
                   "{}: dataset \"{}\" must have elements of {} bytes, got {}", path().string(), name,
                   element_bytes, hdf5_type_bytes(found.type));
  check<DataError>(reinterpret_cast<uintptr_t>(found.bytes.data()) % element_bytes == 0,
                   "{}: dataset \"{}\" must lie on a multiple of its element's {} bytes", path().string(),
                   name, element_bytes);
  return found;
}

}  // namespace retort::formats
