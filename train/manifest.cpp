#include "train/manifest.h"

#include <algorithm>

#include "core/digest.h"
#include "core/error.h"
#include "core/input_file.h"

namespace retort::train {
namespace {

using formats::Json;

constexpr const char* kFormat = "retort-checkpoint";
constexpr int64_t kVersion = 2;  // 1 has digests of whole tensors and files
constexpr uint64_t kManifestLimit = uint64_t{1} << 28;
constexpr uint64_t kPiece = uint64_t{1} << 20;  // that is read at a time

// XXH3 of digests, each eight bytes, the lowest first.
class DigestOfDigests {
 public:
  void add(uint64_t digest) { digest_.add(std::as_bytes(std::span(&digest, 1))); }
  uint64_t value() const { return digest_.value(); }

 private:
  Digest digest_;
};

std::string sealed(const Json& manifest) {
  const auto text = [](const Json& json) {  // a source's path may be no UTF-8
    return json.dump(1, ' ', false, Json::error_handler_t::replace);
  };
  return text({{"manifest", manifest}, {"xxh3", hex(xxh3(text(manifest)))}}) + "\n";
}

uint64_t bytes_of(const Json& entry, const char* key) {
  return static_cast<uint64_t>(formats::json_integer(entry, key, "manifest"));
}

bool has_digest(const Json& entry, uint64_t digest) {
  return hex(digest) == formats::json_text(entry, "xxh3", "manifest");
}

// Digests of runs of a file's bytes. They are read, a piece at a time: what the disk refuses is a damaged checkpoint, where a
// mapping would end the process.
class RunDigests {
 public:
  explicit RunDigests(const InputFile& file) : file_(file), piece_(std::min(file.size(), kPiece)) {}
  uint64_t operator()(uint64_t begin, uint64_t end) {
    Digest digest;
    while (begin < end) {
      if (begin < at_ || begin >= at_ + held_) {
        at_ = begin;
        held_ = file_.read(begin, piece_);
        check<CheckpointError>(held_ > 0, "{}: has become shorter", file_.path());
      }
      const uint64_t count = std::min(end, at_ + held_) - begin;
      digest.add(std::span(piece_).subspan(begin - at_, count));
      begin += count;
    }
    return digest.value();
  }

 private:
  const InputFile& file_;
  std::vector<std::byte> piece_;
  uint64_t at_ = 0, held_ = 0;
};

void verify_blocks(const InputFile& file, const Json& entry) {
  const std::string& source = file.path();
  RunDigests digest_of(file);
  const Json& tensors = entry.at("tensors");
  uint64_t at = tensors.empty() ? file.size() : bytes_of(tensors.front(), "begin");
  check<CheckpointError>(at <= file.size(), "{}: its tensors begin beyond its end", source);
  DigestOfDigests whole;
  whole.add(digest_of(0, at));
  for (const Json& tensor : tensors) {
    const uint64_t begin = bytes_of(tensor, "begin"), end = bytes_of(tensor, "end"),
                   block = bytes_of(tensor, "block");
    const std::string name = formats::json_text(tensor, "name", "manifest");
    check<CheckpointError>(begin == at && begin <= end && end <= file.size() && block > 0,
                           "{}: {} has an impossible place in it", source, name);
    DigestOfDigests digest;
    for (; at < end; at += std::min(block, end - at))
      digest.add(digest_of(at, at + std::min(block, end - at)));
    check<CheckpointError>(has_digest(tensor, digest.value()), "{}: damaged: {} does not match its digest",
                           source, name);
    whole.add(digest.value());
  }
  check<CheckpointError>(at == file.size() && has_digest(entry, whole.value()),
                         "{}: damaged: it does not match its digest", source);
}

// Of version 1.
void verify_whole(const InputFile& file, const Json& entry) {
  const std::string& source = file.path();
  RunDigests digest_of(file);
  if (has_digest(entry, digest_of(0, file.size()))) return;
  for (const Json& tensor : entry.at("tensors")) {
    const uint64_t begin = bytes_of(tensor, "begin"), end = bytes_of(tensor, "end");
    if (begin > end || end > file.size()) continue;
    check<CheckpointError>(has_digest(tensor, digest_of(begin, end)),
                           "{}: damaged: {} does not match its digest", source,
                           formats::json_text(tensor, "name", "manifest"));
  }
  fail<CheckpointError>("{}: damaged: it does not match its digest", source);
}

}  // namespace

std::string manifest_text(int64_t step, const Json& extra, std::span<const SavedFile> files,
                          std::span<const uint64_t> digests) {
  Json index = Json::array();
  for (const SavedFile& file : files) {
    DigestOfDigests whole;
    whole.add(xxh3(file.head));
    Json tensors = Json::array();
    for (const SavedTensor& tensor : file.tensors) {
      DigestOfDigests digest;
      const auto blocks = static_cast<size_t>(tensor.blocks());
      for (const uint64_t one : digests.first(blocks)) digest.add(one);
      digests = digests.subspan(blocks);
      whole.add(digest.value());
      tensors.push_back({{"name", tensor.name},
                         {"dtype", tensor.dtype},
                         {"shape", tensor.shape},
                         {"begin", tensor.begin},
                         {"end", tensor.end},
                         {"block", tensor.block},
                         {"xxh3", hex(digest.value())}});
    }
    index.push_back(
        {{"name", file.name}, {"bytes", file.bytes()}, {"xxh3", hex(whole.value())}, {"tensors", tensors}});
  }
  RETORT_ASSERT(digests.empty());
  return sealed(
      {{"format", kFormat}, {"version", kVersion}, {"step", step}, {"extra", extra}, {"files", index}});
}

Json read_manifest(const Path& checkpoint) {
  const std::string source = (checkpoint / kManifest).string();
  const std::string text = read_text(source, kManifestLimit);
  const Json whole = formats::parse_json(text, source);
  check<CheckpointError>(whole.is_object() && whole.contains("manifest") && sealed(whole["manifest"]) == text,
                         "{}: damaged: it does not match its own digest", source);
  const Json& manifest = whole["manifest"];
  check<CheckpointError>(formats::json_text(manifest, "format", source) == kFormat,
                         "{}: not a Retort checkpoint", source);
  const int64_t version = formats::json_integer(manifest, "version", source);
  check<CheckpointError>(version >= 1 && version <= kVersion,
                         "{}: version {} is not one of 1 to {}, which this program reads", source, version,
                         kVersion);
  return manifest;
}

void verify_file(const Path& path, const Json& entry, int64_t version) {
  const InputFile file(path);
  const uint64_t expected = bytes_of(entry, "bytes");
  check<CheckpointError>(file.size() == expected, "{}: must have {} bytes, got {}", file.path(), expected,
                         file.size());
  (version == 1 ? verify_whole : verify_blocks)(file, entry);
}

}  // namespace retort::train
