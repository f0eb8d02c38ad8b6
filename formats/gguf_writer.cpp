#include <bit>
#include <unordered_set>

#include "core/error.h"
#include "core/shape.h"
#include "formats/gguf.h"
#include "formats/untrusted.h"

namespace retort::formats {
namespace {

class Image {
 public:
  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_ += value;
  }
  void pad(uint64_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0');
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Value type numbers are persistent: files hold them.
template <class T>
constexpr int32_t kTypeOf = -1;
template <>
constexpr int32_t kTypeOf<uint32_t> = 4;
template <>
constexpr int32_t kTypeOf<int32_t> = 5;
template <>
constexpr int32_t kTypeOf<float> = 6;
template <>
constexpr int32_t kTypeOf<bool> = 7;
template <>
constexpr int32_t kTypeOf<std::string> = 8;
template <>
constexpr int32_t kTypeOf<uint64_t> = 10;
template <>
constexpr int32_t kTypeOf<int64_t> = 11;
template <>
constexpr int32_t kTypeOf<double> = 12;
constexpr int32_t kArray = 9;

void put(Image& out, const std::string& value) { out.text(value); }
void put(Image& out, bool value) { out.number<uint8_t>(value ? 1 : 0); }
template <class T>
void put(Image& out, T value) {
  out.number(value);
}

template <class T>
void put_typed(Image& out, const T& value) {
  out.number(kTypeOf<T>);
  put(out, value);
}
template <class T>
void put_typed(Image& out, const std::vector<T>& values) {
  out.number(kArray);
  out.number(kTypeOf<T>);
  out.number<uint64_t>(values.size());
  for (const auto& value : values) put(out, static_cast<const T&>(value));
}

uint64_t alignment_of(const GgufMetadata& metadata) {
  for (const auto& [key, value] : metadata) {
    if (key != "general.alignment") continue;
    const uint32_t* number = std::get_if<uint32_t>(&value);
    check(number != nullptr && std::has_single_bit(*number),
          "[write_gguf] general.alignment must be a uint32_t power of two");
    return *number;
  }
  return 32;
}

uint64_t padding(uint64_t size, uint64_t alignment) { return (alignment - size % alignment) % alignment; }

void check_tensor(const std::string& name, const PackedTensor& tensor) {
  check(!name.empty() && name.size() <= 63, "[write_gguf] tensor names must have 1 to 63 bytes, got {}",
        shown(name));
  check(tensor.shape.size() <= 4, "[write_gguf] tensor {} must have at most 4 dimensions, got {}",
        shown(name), format_shape(tensor.shape));
  const uint64_t expected = packed_bytes(tensor.type, tensor.shape);
  check(tensor.bytes.size() == expected, "[write_gguf] tensor {} {} of {} must have {} bytes, got {}",
        shown(name), ggml_type_info(tensor.type).name, format_shape(tensor.shape), expected,
        tensor.bytes.size());
}

}  // namespace

void write_gguf(FileSystem& files, const Path& path, const GgufMetadata& metadata,
                const std::vector<std::pair<std::string, PackedTensor>>& tensors) {
  const uint64_t alignment = alignment_of(metadata);
  std::unordered_set<std::string> names, keys;
  Image header;
  header.number<uint32_t>(0x46554747);
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(metadata.size());
  for (const auto& [key, value] : metadata) {
    check(!key.empty() && keys.insert(key).second, "[write_gguf] keys must be there once, got {}",
          shown(key));
    header.text(key);
    std::visit([&](const auto& v) { put_typed(header, v); }, value);
  }
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    check_tensor(name, tensor);
    check(names.insert(name).second, "[write_gguf] tensor {} must be there once", shown(name));
    header.text(name);
    header.number<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      header.number<int64_t>(*size);
    header.number<int32_t>(static_cast<int32_t>(tensor.type));
    header.number<uint64_t>(offset);
    offset += tensor.bytes.size() + padding(tensor.bytes.size(), alignment);
  }
  header.pad(alignment);
  const std::vector<std::byte> zeros(alignment);
  write_durably(files, path, header.bytes().size() + offset, [&](WritableFile& file) {
    file.append(as_bytes(header.bytes()));
    for (const auto& item : tensors) {
      const auto& bytes = item.second.bytes;
      file.append(bytes);
      file.append(std::span(zeros).first(padding(bytes.size(), alignment)));
    }
  });
}

}  // namespace retort::formats
