// GGUF version 3, the container of llama.cpp. Grammar, little-endian:
//   "GGUF" u32 version i64 n_tensors i64 n_kv
//   n_kv      x { string key, i32 type, value }          string = u64 length, bytes
//   n_tensors x { string name, u32 n_dims, i64 ne[n_dims], i32 ggml_type, u64 offset }
//   padding to alignment, then the data; offsets count from here and equal the running padded sum
// `ne` is the shape reversed. Here shapes are in torch order always. Reading maps the file and checks every
// length, count and product against its size before it allocates. A file with tensor types whose values
// Retort cannot read opens and can be listed; a type of unknown size is refused. Throws DataError naming
// file, key or tensor, and rule. Thread rule: a GgufFile is immutable and may be shared.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/file.h"
#include "formats/ggml_blocks.h"

namespace retort::formats {

// The alternative is the file's type, both ways. Narrower integers are read as 32 bits with their sign;
// arrays of u32, u64 and i64 as int64_t, of other integers as int32_t.
using GgufValue = std::variant<uint32_t, int32_t, uint64_t, int64_t, float, double, bool, std::string,
                               std::vector<int64_t>, std::vector<int32_t>, std::vector<float>,
                               std::vector<bool>, std::vector<std::string>, std::vector<double>>;
// In file order; keys unique.
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

struct GgufTensorInfo {
  std::string name;
  GgmlType type;
  std::vector<int64_t> shape;  // torch order
  uint64_t offset = 0, bytes = 0;
};

class GgufFile {
 public:
  explicit GgufFile(const Path& path);
  const Path& path() const;
  const GgufMetadata& metadata() const;
  const GgufValue* find(std::string_view key) const;
  // Typed access with widening; DataError when the key is missing or of another kind, unless a default is
  // given.
  int64_t integer(std::string_view key, std::optional<int64_t> absent = std::nullopt) const;
  double real(std::string_view key, std::optional<double> absent = std::nullopt) const;
  std::string text(std::string_view key, std::optional<std::string> absent = std::nullopt) const;
  const std::vector<GgufTensorInfo>& tensors() const;
  const GgufTensorInfo* find_tensor(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensorInfo& tensor) const;
  at::Tensor values(std::string_view name) const;  // dequantized to f32; DataError for a missing name

 private:
  struct Content;
  std::shared_ptr<const Content> content_;
};

// Writes durably, tensors in the given order. Throws ShapeError for what llama.cpp would not load: a name
// over 63 bytes or a duplicate, more than 4 dimensions, bytes that are not the shape's, an alignment
// (`general.alignment` in the metadata, else 32) that is no power of two.
void write_gguf(FileSystem& files, const Path& path, const GgufMetadata& metadata,
                const std::vector<std::pair<std::string, PackedTensor>>& tensors);

}  // namespace retort::formats
