// manifest.json of a checkpoint: which files and tensors it has and their digests (docs/formats.md). Digests are of
// blocks of rows, put together from the top of a file to its end, so that ranks find them for what they write, and the
// manifest does not know which rank wrote what. Throws CheckpointError.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "formats/json.h"

namespace retort::train {

constexpr const char* kManifest = "manifest.json";

struct SavedTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // of the file's bytes
  uint64_t block = 1;           // bytes that have a digest of their own; the last ones may be fewer
  int64_t blocks() const { return static_cast<int64_t>((end - begin + block - 1) / block); }
};

struct SavedFile {
  std::string name;
  std::string head;  // its first bytes; the tensors follow, without a gap
  std::vector<SavedTensor> tensors = {};
  uint64_t bytes() const { return tensors.empty() ? head.size() : tensors.back().end; }
};

// `digests`: of every block of every tensor of every file, in their order.
std::string manifest_text(int64_t step, const formats::Json& extra, std::span<const SavedFile> files,
                          std::span<const uint64_t> digests);

// The manifest's value, after its own digest and layout held: of this program's version, or of an older one.
formats::Json read_manifest(const Path& checkpoint);

// Checks size and digests of one file; on a mismatch the message names the tensor that is damaged.
void verify_file(const Path& path, const formats::Json& entry, int64_t version);

}  // namespace retort::train
