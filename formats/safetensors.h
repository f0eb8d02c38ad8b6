// safetensors: u64 header length N; N bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin,
// end]}}; then the tensors' bytes without hole, overlap or tail. docs/formats.md has the grammar. Reading
// maps the file: a tensor is a view of the mapping and keeps it alive. Everything is checked against the
// file's size before anything is allocated: header <= 100 MB, dtypes from a list, shape products without
// overflow, offsets contiguous. Throws DataError naming file, tensor and rule; IoError from the system.
// Thread rule: a SafetensorsFile is immutable and may be shared.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace retort::formats {

struct SafetensorsEntry {
  std::string dtype;  // as in the file: F32, BF16, I64, ...
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // relative to the data
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const Path& path);
  const Path& path() const;
  const std::map<std::string, SafetensorsEntry>& entries() const;  // by name
  const std::map<std::string, std::string>& metadata() const;
  bool contains(std::string_view name) const;
  std::span<const std::byte> bytes(std::string_view name) const;
  // A read-only view of the mapping (do not write to it); DataError for a missing name or a dtype that
  // LibTorch does not have.
  at::Tensor tensor(std::string_view name) const;

 private:
  struct Content;
  std::shared_ptr<const Content> content_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// The file's image: header padded with spaces so that the data starts on a multiple of 8; tensors in the
// given order (dense CPU copies are made as needed). Names must be unique.
std::string safetensors_header(const NamedTensors& tensors,
                               const std::map<std::string, std::string>& metadata);
// Writes it durably, streaming (the image is never in memory as a whole).
void write_safetensors(FileSystem& files, const Path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace retort::formats
