#include "formats/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "formats/json.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

constexpr uint64_t kLongestHeader = 100'000'000;
constexpr std::string_view kMetadata = "__metadata__";

// Bits, because F4 packs two values a byte. `torch` is absent where LibTorch has no such type.
struct Dtype {
  std::string name;
  uint64_t bits;
  std::optional<at::ScalarType> torch;
};

const std::vector<Dtype>& dtypes() {
  static const std::vector<Dtype> table = {
      {"BOOL", 8, at::kBool},
      {"U8", 8, at::kByte},
      {"I8", 8, at::kChar},
      {"I16", 16, at::kShort},
      {"U16", 16, at::kUInt16},
      {"F16", 16, at::kHalf},
      {"BF16", 16, at::kBFloat16},
      {"I32", 32, at::kInt},
      {"U32", 32, at::kUInt32},
      {"F32", 32, at::kFloat},
      {"I64", 64, at::kLong},
      {"U64", 64, at::kUInt64},
      {"F64", 64, at::kDouble},
      {"C64", 64, at::kComplexFloat},
      {"F8_E4M3", 8, at::kFloat8_e4m3fn},
      {"F8_E5M2", 8, at::kFloat8_e5m2},
      {"F8_E8M0", 8, at::kFloat8_e8m0fnu},
      {"F8_E4M3FNUZ", 8, at::kFloat8_e4m3fnuz},
      {"F8_E5M2FNUZ", 8, at::kFloat8_e5m2fnuz},
      {"F4", 4, std::nullopt},
  };
  return table;
}

const Dtype* find_dtype(std::string_view name) {
  const auto row =
      std::find_if(dtypes().begin(), dtypes().end(), [&](const Dtype& d) { return d.name == name; });
  return row == dtypes().end() ? nullptr : &*row;
}

const Dtype& dtype_of(at::ScalarType type, std::string_view tensor) {
  for (const Dtype& row : dtypes())
    if (row.torch == type) return row;
  fail<ShapeError>("[safetensors] tensor {} has a type that the format does not know: {}", shown(tensor),
                   c10::toString(type));
}

uint64_t unsigned_value(const Json& value, const std::string& where, std::string_view field) {
  check<DataError>(value.is_number_unsigned(), "{}: {} must hold whole numbers of at least 0, got {}", where,
                   field, value.type_name());
  const auto number = value.get<uint64_t>();
  check<DataError>(number <= uint64_t{INT64_MAX}, "{}: {} must fit in 63 bits, got {}", where, field, number);
  return number;
}

SafetensorsEntry read_entry(const Json& json, const std::string& where, uint64_t data_bytes) {
  for (const char* field : {"dtype", "shape", "data_offsets"})
    check<DataError>(json.is_object() && json.contains(field),
                     "{}: must be an object with dtype, shape and "
                     "data_offsets, and has no {}",
                     where, field);
  SafetensorsEntry entry;
  entry.dtype = json_text(json, "dtype", where);
  const Dtype* dtype = find_dtype(entry.dtype);
  check<DataError>(dtype != nullptr, "{}: dtype must be one that safetensors defines, got {}", where,
                   shown(entry.dtype));
  const Json &shape = json["shape"], &offsets = json["data_offsets"];
  check<DataError>(shape.is_array() && shape.size() <= 64, "{}: shape must be an array of at most 64 sizes",
                   where);
  for (const Json& size : shape)
    entry.shape.push_back(static_cast<int64_t>(unsigned_value(size, where, "shape")));
  check<DataError>(offsets.is_array() && offsets.size() == 2, "{}: data_offsets must be [begin, end]", where);
  entry.begin = unsigned_value(offsets[0], where, "data_offsets");
  entry.end = unsigned_value(offsets[1], where, "data_offsets");
  check<DataError>(entry.begin <= entry.end && entry.end <= data_bytes,
                   "{}: data_offsets must lie in order within the data's {} bytes, got [{}, {}]", where,
                   data_bytes, entry.begin, entry.end);
  const auto bits = checked_product(entry.shape, dtype->bits);
  check<DataError>(bits.has_value(), "{}: the product of a shape must fit in 63 bits, got {}", where,
                   format_shape(entry.shape));
  check<DataError>(*bits % 8 == 0 && *bits / 8 == entry.end - entry.begin,
                   "{}: {} {} needs {} bytes, but data_offsets span {}", where, entry.dtype,
                   format_shape(entry.shape), (*bits + 7) / 8, entry.end - entry.begin);
  return entry;
}

std::map<std::string, std::string> read_metadata(const Json& json, const std::string& path) {
  check<DataError>(json.is_object(), "{}: {} must be an object", path, kMetadata);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : json.items()) {
    check<DataError>(value.is_string(), "{}: {} must map strings to strings; {} is a {}", path, kMetadata,
                     shown(key), value.type_name());
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

// The tensors must cover the data exactly: no hole, no overlap, no tail.
void check_coverage(const std::map<std::string, SafetensorsEntry>& entries, uint64_t data_bytes,
                    const std::string& path) {
  using Item = const std::pair<const std::string, SafetensorsEntry>*;
  std::vector<Item> order;
  for (const auto& item : entries) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](Item a, Item b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t covered = 0;
  for (const Item item : order) {
    check<DataError>(item->second.begin == covered,
                     "{}: tensor {} begins at {} and leaves {}: the one before ends at {}", path,
                     shown(item->first), item->second.begin,
                     item->second.begin > covered ? "a hole" : "an overlap", covered);
    covered = item->second.end;
  }
  check<DataError>(covered == data_bytes, "{}: the tensors end at {}, but the data has {} bytes", path,
                   covered, data_bytes);
}

std::string escaped(const std::string& name) {
  try {
    return Json(name).dump();
  } catch (const Json::exception&) {
    fail<ShapeError>("[safetensors] names must be UTF-8, got {}", shown(name));
  }
}

bool aligned(const void* data, size_t bytes) { return reinterpret_cast<uintptr_t>(data) % bytes == 0; }

}  // namespace

struct SafetensorsFile::Content {
  std::shared_ptr<const MappedFile> file;
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
  std::span<const std::byte> data;

  const SafetensorsEntry& entry(std::string_view name) const {
    if (const auto found = entries.find(std::string(name)); found != entries.end()) return found->second;
    std::vector<std::string> known;
    for (const auto& item : entries) known.push_back(item.first);
    fail<DataError>("{}: has no tensor \"{}\"{}", file->path().string(), name, did_you_mean(name, known));
  }
};

SafetensorsFile::SafetensorsFile(const Path& path) {
  auto content = std::make_shared<Content>();
  content->file = MappedFile::open(path);
  const std::string where = path.string();
  const std::span<const std::byte> file = content->file->bytes();
  check<DataError>(file.size() >= 8,
                   "{}: a safetensors file begins with 8 bytes of header length, got {} bytes", where,
                   file.size());
  uint64_t length;
  std::memcpy(&length, file.data(), sizeof length);
  check<DataError>(length <= kLongestHeader && length <= file.size() - 8,
                   "{}: the header must fit in the file's {} bytes and in {}, got a length of {}", where,
                   file.size(), kLongestHeader, length);
  content->data = file.subspan(8 + length);
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + 8, length);
  check<DataError>(header.starts_with('{'), "{}: the header must begin with {{", where);
  const Json json = parse_json(header, where + " (header)");
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata)
      content->metadata = read_metadata(value, where);
    else
      content->entries.emplace(name,
                               read_entry(value, where + ": tensor " + shown(name), content->data.size()));
  }
  check_coverage(content->entries, content->data.size(), where);
  content_ = std::move(content);
}

const Path& SafetensorsFile::path() const { return content_->file->path(); }
const std::map<std::string, SafetensorsEntry>& SafetensorsFile::entries() const { return content_->entries; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return content_->metadata; }
bool SafetensorsFile::contains(std::string_view name) const {
  return content_->entries.find(std::string(name)) != content_->entries.end();
}

std::span<const std::byte> SafetensorsFile::bytes(std::string_view name) const {
  const SafetensorsEntry& entry = content_->entry(name);
  return content_->data.subspan(entry.begin, entry.end - entry.begin);
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry& entry = content_->entry(name);
  const Dtype& dtype = *find_dtype(entry.dtype);
  check<DataError>(dtype.torch.has_value(), "{}: tensor {} is {}, which LibTorch does not have",
                   path().string(), shown(name), entry.dtype);
  const std::span<const std::byte> data = bytes(name);
  if (dtype.torch == at::kBool)
    check<DataError>(std::all_of(data.begin(), data.end(), [](std::byte b) { return b <= std::byte{1}; }),
                     "{}: tensor {} is BOOL and must hold 0 and 1 only", path().string(), shown(name));
  // Another writer may have put a tensor at an odd address, where a view would be undefined behaviour.
  if (data.empty() || !aligned(data.data(), dtype.bits / 8)) {
    at::Tensor copy = at::empty(entry.shape, *dtype.torch);
    if (!data.empty()) std::memcpy(copy.mutable_data_ptr(), data.data(), data.size());
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data.data()), entry.shape, [keep = content_](void*) {}, at::dtype(*dtype.torch));
}

std::string safetensors_header(const NamedTensors& tensors,
                               const std::map<std::string, std::string>& metadata) {
  std::unordered_set<std::string> names;
  std::vector<std::string> members;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) pairs.push_back(escaped(key) + ":" + escaped(value));
    members.push_back(fmt::format("\"{}\":{{{}}}", kMetadata, fmt::join(pairs, ",")));
  }
  uint64_t begin = 0;
  for (const auto& [name, tensor] : tensors) {
    check(name != kMetadata && names.insert(name).second, "[safetensors] tensor names must be unique, got {}",
          shown(name));
    check(tensor.defined() && tensor.layout() == at::kStrided, "[safetensors] tensor {} must be dense",
          shown(name));
    const Dtype& dtype = dtype_of(tensor.scalar_type(), name);
    const uint64_t end = begin + static_cast<uint64_t>(tensor.numel()) * dtype.bits / 8;
    members.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", escaped(name),
                                  dtype.name, Json(tensor.sizes().vec()).dump(), begin, end));
    begin = end;
  }
  std::string text = fmt::format("{{{}}}", fmt::join(members, ","));
  text.resize((text.size() + 7) / 8 * 8, ' ');
  check(text.size() <= kLongestHeader, "[safetensors] a header may have {} bytes, got {}", kLongestHeader,
        text.size());
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

void write_safetensors(FileSystem& files, const Path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = safetensors_header(tensors, metadata);
  uint64_t total = header.size();
  for (const auto& item : tensors) total += static_cast<uint64_t>(item.second.nbytes());
  write_durably(files, path, total, [&](WritableFile& file) {
    file.append(as_bytes(header));
    for (const auto& item : tensors) {
      const at::Tensor dense = item.second.detach().cpu().contiguous();
      file.append({static_cast<const std::byte*>(dense.const_data_ptr()), dense.nbytes()});
    }
  });
}

}  // namespace retort::formats
