#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "formats/gguf.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

constexpr size_t kLongestTensorName = 63;
constexpr uint32_t kMostDimensions = 4;
constexpr int32_t kArray = 9;
// The least that one entry can take in the file: a count beyond the rest of the file is a lie.
constexpr uint64_t kSmallestKey = 8 + 4 + 1, kSmallestTensor = 8 + 4 + 4 + 8;

// Takes numbers and strings from the front of the file, never past its end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}

  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string text(std::string_view what) {
    const auto length = number<uint64_t>(what);
    check<DataError>(length <= left(), "{}: {} at byte {} claims {} bytes of text, but {} are left", path_,
                     what, position_, length, left());
    const auto bytes = take(length, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // A count of things that take at least `each` bytes.
  uint64_t count(uint64_t claimed, uint64_t each, std::string_view what) const {
    check<DataError>(claimed <= left() / each, "{}: {} claims {} entries, but only {} bytes are left", path_,
                     what, claimed, left());
    return claimed;
  }
  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }
  const std::string& path() const { return path_; }

 private:
  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    check<DataError>(size <= left(), "{}: the file ends at byte {}, within {}", path_, bytes_.size(), what);
    const auto taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }
  std::span<const std::byte> bytes_;
  std::string path_;
  uint64_t position_ = 0;
};

bool read_bool(Cursor& in, const std::string& what) {
  const auto value = in.number<uint8_t>(what);
  check<DataError>(value <= 1, "{}: {} is a bool and must be 0 or 1, got {}", in.path(), what, value);
  return value == 1;
}

template <class InFile, class InMemory>
GgufValue read_array(Cursor& in, uint64_t claimed, const std::string& what) {
  std::vector<InMemory> values(in.count(claimed, sizeof(InFile), what));
  for (auto&& value : values) {
    const auto number = in.number<InFile>(what);
    if constexpr (std::is_same_v<InFile, uint64_t>)
      check<DataError>(number <= uint64_t{INT64_MAX}, "{}: {} holds {}, which does not fit in 63 bits",
                       in.path(), what, number);
    value = static_cast<InMemory>(number);
  }
  return values;
}

GgufValue read_bools(Cursor& in, uint64_t claimed, const std::string& what) {
  std::vector<bool> values(in.count(claimed, 1, what));
  for (size_t i = 0; i < values.size(); ++i) values[i] = read_bool(in, what);
  return values;
}

GgufValue read_texts(Cursor& in, uint64_t claimed, const std::string& what) {
  std::vector<std::string> values;
  in.count(claimed, 8, what);
  for (uint64_t i = 0; i < claimed; ++i) values.push_back(in.text(what));
  return values;
}

GgufValue read_array(Cursor& in, const std::string& what) {
  const auto type = in.number<int32_t>(what);
  const auto count = in.number<uint64_t>(what);
  switch (type) {
    case 0:
      return read_array<uint8_t, int32_t>(in, count, what);
    case 1:
      return read_array<int8_t, int32_t>(in, count, what);
    case 2:
      return read_array<uint16_t, int32_t>(in, count, what);
    case 3:
      return read_array<int16_t, int32_t>(in, count, what);
    case 4:
      return read_array<uint32_t, int64_t>(in, count, what);
    case 5:
      return read_array<int32_t, int32_t>(in, count, what);
    case 6:
      return read_array<float, float>(in, count, what);
    case 7:
      return read_bools(in, count, what);
    case 8:
      return read_texts(in, count, what);
    case 10:
      return read_array<uint64_t, int64_t>(in, count, what);
    case 11:
      return read_array<int64_t, int64_t>(in, count, what);
    case 12:
      return read_array<double, double>(in, count, what);
    default:
      fail<DataError>("{}: {} is an array of type {}; arrays of arrays and types above 12 are not read",
                      in.path(), what, type);
  }
}

GgufValue read_value(Cursor& in, int32_t type, const std::string& what) {
  switch (type) {
    case 0:
      return uint32_t{in.number<uint8_t>(what)};
    case 1:
      return int32_t{in.number<int8_t>(what)};
    case 2:
      return uint32_t{in.number<uint16_t>(what)};
    case 3:
      return int32_t{in.number<int16_t>(what)};
    case 4:
      return in.number<uint32_t>(what);
    case 5:
      return in.number<int32_t>(what);
    case 6:
      return in.number<float>(what);
    case 7:
      return read_bool(in, what);
    case 8:
      return in.text(what);
    case kArray:
      return read_array(in, what);
    case 10:
      return in.number<uint64_t>(what);
    case 11:
      return in.number<int64_t>(what);
    case 12:
      return in.number<double>(what);
    default:
      fail<DataError>("{}: {} must have a value type of 0 to 12, got {}", in.path(), what, type);
  }
}

GgufMetadata read_metadata(Cursor& in, uint64_t claimed) {
  GgufMetadata metadata;
  std::unordered_set<std::string> keys;
  in.count(claimed, kSmallestKey, "the metadata");
  for (uint64_t i = 0; i < claimed; ++i) {
    std::string key = in.text(fmt::format("metadata key {}", i));
    const std::string what = "key " + shown(key);
    check<DataError>(keys.insert(key).second, "{}: {} must be there once", in.path(), what);
    const auto type = in.number<int32_t>(what);
    metadata.emplace_back(std::move(key), read_value(in, type, what));
  }
  return metadata;
}

GgufTensorInfo read_tensor(Cursor& in, uint64_t index) {
  GgufTensorInfo info;
  info.name = in.text(fmt::format("the name of tensor {}", index));
  const std::string what = "tensor " + shown(info.name);
  check<DataError>(info.name.size() <= kLongestTensorName, "{}: {} must have a name of at most {} bytes",
                   in.path(), what, kLongestTensorName);
  const auto dimensions = in.number<uint32_t>(what);
  check<DataError>(dimensions <= kMostDimensions, "{}: {} must have at most {} dimensions, got {}", in.path(),
                   what, kMostDimensions, dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) info.shape.push_back(in.number<int64_t>(what));
  std::reverse(info.shape.begin(), info.shape.end());
  info.type = static_cast<GgmlType>(in.number<int32_t>(what));
  info.offset = in.number<uint64_t>(what);
  try {
    info.bytes = packed_bytes(info.type, info.shape);
  } catch (const DataError& e) {
    fail<DataError>("{}: {}: {}", in.path(), what, e.what());
  }
  return info;
}

uint64_t padded(uint64_t size, uint64_t alignment) { return (size + alignment - 1) / alignment * alignment; }

// Offsets must be the running sum of padded sizes. The last tensor's padding may be missing, as in llama.cpp.
void check_layout(const std::vector<GgufTensorInfo>& tensors, uint64_t alignment, uint64_t data_bytes,
                  const std::string& path) {
  uint64_t end = 0;
  for (const GgufTensorInfo& info : tensors) {
    check<DataError>(info.offset == end,
                     "{}: tensor {} must lie at offset {}, right after the one before, got {}", path,
                     shown(info.name), end, info.offset);
    check<DataError>(end <= data_bytes && info.bytes <= data_bytes - end,
                     "{}: tensor {} {} needs {} bytes at offset {}, but the data has {}", path,
                     shown(info.name), format_shape(info.shape), info.bytes, end, data_bytes);
    end += padded(info.bytes, alignment);
  }
}

std::string kind(const GgufValue& value) {
  static const std::vector<std::string> names = {"u32",   "i32",    "u64",    "i64",   "f32",
                                                 "f64",   "bool",   "text",   "i64[]", "i32[]",
                                                 "f32[]", "bool[]", "text[]", "f64[]"};
  static_assert(std::variant_size_v<GgufValue> == 14);
  return names[value.index()];
}

}  // namespace

struct GgufFile::Content {
  std::shared_ptr<const MappedFile> file;
  std::string path;
  GgufMetadata metadata;
  std::vector<GgufTensorInfo> tensors;
  std::unordered_map<std::string, size_t> key_index, tensor_index;
  std::span<const std::byte> data;

  const GgufValue* find(std::string_view key) const {
    const auto found = key_index.find(std::string(key));
    return found == key_index.end() ? nullptr : &metadata[found->second].second;
  }
  uint64_t alignment() const {
    const GgufValue* value = find("general.alignment");
    if (value == nullptr) return 32;
    const uint32_t* number = std::get_if<uint32_t>(value);
    check<DataError>(number != nullptr && std::has_single_bit(*number),
                     "{}: general.alignment must be a u32 power of two, got {}", path,
                     number == nullptr ? kind(*value) : fmt::to_string(*number));
    return *number;
  }
  // Null only where the caller has a default.
  const GgufValue* find(std::string_view key, bool optional) const {
    const GgufValue* value = find(key);
    if (value != nullptr || optional) return value;
    std::vector<std::string> known;
    for (const auto& item : metadata) known.push_back(item.first);
    fail<DataError>("{}: has no key \"{}\"{}", path, key, did_you_mean(key, known));
  }
  [[noreturn]] void wrong_kind(std::string_view key, std::string_view expected) const {
    fail<DataError>("{}: key \"{}\" must be {}, got {}", path, key, expected, kind(*find(key)));
  }
};

GgufFile::GgufFile(const Path& path) {
  auto content = std::make_shared<Content>();
  content->file = MappedFile::open(path);
  content->path = path.string();
  const auto bytes = content->file->bytes();
  Cursor in(bytes, content->path);
  check<DataError>(in.number<uint32_t>("the magic") == 0x46554747, "{}: must begin with \"GGUF\"",
                   content->path);
  const auto version = in.number<uint32_t>("the version");
  check<DataError>((version & 0xffff) != 0, "{}: is big-endian, which is not read", content->path);
  check<DataError>(version == 2 || version == 3, "{}: must have GGUF version 2 or 3, got {}", content->path,
                   version);
  const auto n_tensors = in.number<uint64_t>("the number of tensors");
  const auto n_keys = in.number<uint64_t>("the number of keys");
  content->metadata = read_metadata(in, n_keys);
  for (size_t i = 0; i < content->metadata.size(); ++i)
    content->key_index.emplace(content->metadata[i].first, i);
  const uint64_t alignment = content->alignment();
  in.count(n_tensors, kSmallestTensor, "the tensor list");
  for (uint64_t i = 0; i < n_tensors; ++i) {
    content->tensors.push_back(read_tensor(in, i));
    const std::string& name = content->tensors.back().name;
    check<DataError>(content->tensor_index.emplace(name, i).second, "{}: tensor {} must be there once",
                     content->path, shown(name));
  }
  const uint64_t start = std::min<uint64_t>(padded(in.position(), alignment), bytes.size());
  content->data = bytes.subspan(start);
  check_layout(content->tensors, alignment, content->data.size(), content->path);
  content_ = std::move(content);
}

const Path& GgufFile::path() const { return content_->file->path(); }
const GgufMetadata& GgufFile::metadata() const { return content_->metadata; }
const GgufValue* GgufFile::find(std::string_view key) const { return content_->find(key); }
const std::vector<GgufTensorInfo>& GgufFile::tensors() const { return content_->tensors; }

int64_t GgufFile::integer(std::string_view key, std::optional<int64_t> absent) const {
  const GgufValue* value = content_->find(key, absent.has_value());
  if (value == nullptr) return *absent;
  if (const auto* v = std::get_if<uint32_t>(value)) return *v;
  if (const auto* v = std::get_if<int32_t>(value)) return *v;
  if (const auto* v = std::get_if<int64_t>(value)) return *v;
  if (const auto* v = std::get_if<uint64_t>(value); v != nullptr && *v <= uint64_t{INT64_MAX})
    return static_cast<int64_t>(*v);
  content_->wrong_kind(key, "an integer of 64 bits");
}

double GgufFile::real(std::string_view key, std::optional<double> absent) const {
  const GgufValue* value = content_->find(key, absent.has_value());
  if (value == nullptr) return *absent;
  if (const auto* v = std::get_if<float>(value)) return *v;
  if (const auto* v = std::get_if<double>(value)) return *v;
  content_->wrong_kind(key, "a real number");
}

std::string GgufFile::text(std::string_view key, std::optional<std::string> absent) const {
  const GgufValue* value = content_->find(key, absent.has_value());
  if (value == nullptr) return *absent;
  if (const auto* v = std::get_if<std::string>(value)) return *v;
  content_->wrong_kind(key, "text");
}

const GgufTensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const auto found = content_->tensor_index.find(std::string(name));
  return found == content_->tensor_index.end() ? nullptr : &content_->tensors[found->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensorInfo& tensor) const {
  return content_->data.subspan(tensor.offset, tensor.bytes);
}

at::Tensor GgufFile::values(std::string_view name) const {
  const GgufTensorInfo* info = find_tensor(name);
  if (info == nullptr) {
    std::vector<std::string> known;
    for (const GgufTensorInfo& tensor : tensors()) known.push_back(tensor.name);
    fail<DataError>("{}: has no tensor \"{}\"{}", content_->path, name, did_you_mean(name, known));
  }
  const GgmlTypeInfo& type = ggml_type_info(info->type);
  check<DataError>(type.has_values,
                   "{}: tensor {} is of type {}, whose values are not read; those that are: {}",
                   content_->path, shown(name), type.name, fmt::join(ggml_type_names(), ", "));
  return unpack(info->type, bytes(*info), info->shape);
}

}  // namespace retort::formats
