#include "train/checkpoint_writer.h"

#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"
#include "models/placement.h"
#include "train/checkpoint.h"

namespace retort::train {
namespace {

// Writes runs of one file, and opens it again only where one does not follow the other.
class Runs {
 public:
  Runs(RangeFiles& ranges, Path path) : ranges_(ranges), path_(std::move(path)) {}

  void write(uint64_t at, std::span<const std::byte> bytes) {
    if (!file_ || at != next_) {
      if (file_) file_->close();
      file_ = ranges_.open_at(path_, at);
    }
    file_->append(bytes);
    next_ = at + bytes.size();
  }

  void finish() {
    if (!file_) return;
    file_->sync();
    file_->close();
  }

 private:
  RangeFiles& ranges_;
  Path path_;
  std::unique_ptr<WritableFile> file_;
  uint64_t next_ = 0;
};

void write_text(FileSystem& files, const Path& path, std::string_view text) {
  const auto file = files.create(path, text.size());
  file->append(as_bytes(text));
  file->sync();
  file->close();
}

// A tensor without dimensions is one row.
at::Tensor as_rows(const at::Tensor& tensor) {
  return tensor.dim() == 0 ? tensor.detach().view({1}) : tensor.detach();
}

uint64_t row_bytes(const at::Tensor& rows) {
  return rows.size(0) == 0 ? 0 : rows.nbytes() / static_cast<uint64_t>(rows.size(0));
}

}  // namespace

CheckpointWriter::CheckpointWriter(FileSystem& files, RangeFiles& ranges, const Path& directory,
                                   CheckpointContent content, const std::string& suffix)
    : files_(files),
      ranges_(ranges),
      directory_(directory),
      path_(checkpoint_path(directory, content.step)),
      temporary_(path_.string() + ".tmp." + suffix),
      content_(std::move(content)),
      suffix_(suffix) {
  add_file(kWeights, content_.weights);
  add_file(kOptimizer, content_.optimizer);
  layout_.push_back({kRecipe, content_.recipe});
  for (const char* name : kTokenizer)
    if (const auto file = content_.tokenizer.find(name); file != content_.tokenizer.end())
      layout_.push_back({name, file->second});
}

void CheckpointWriter::add_file(const std::string& name, const formats::NamedTensors& tensors) {
  SavedFile file{name, formats::safetensors_header(tensors, {{"format", "pt"}})};
  uint64_t at = file.head.size();
  for (const auto& [tensor_name, tensor] : tensors) {
    const at::Tensor rows = as_rows(tensor);
    const auto share = content_.shares.find(tensor_name);
    RETORT_ASSERT(tensor.is_meta() == (share != content_.shares.end()));
    const int64_t step = tensor.is_meta() ? share->second.step : models::cut_into_blocks(rows.sizes()).step;
    const uint64_t block = std::max<uint64_t>(1, row_bytes(rows) * static_cast<uint64_t>(step));
    file.tensors.push_back(
        {tensor_name, toString(tensor.scalar_type()), tensor.sizes().vec(), at, at + tensor.nbytes(), block});
    places_[tensor_name] = {tensor, step, digests_};
    digests_ += file.tensors.back().blocks();
    at += tensor.nbytes();
  }
  layout_.push_back(std::move(file));
}

Share CheckpointWriter::share_of(const std::string& name) const {
  const Place& place = places_.at(name);
  if (place.whole.is_meta()) return content_.shares.at(name);
  return {place.whole, 0, place.step};
}

void CheckpointWriter::reserve() const {
  files_.make_directories(directory_);
  files_.remove_all(temporary_);
  files_.make_directories(temporary_);
  uint64_t needed = 0;
  for (const SavedFile& file : layout_) needed += file.bytes();
  const uint64_t free = files_.free_bytes(temporary_);
  check<IoError>(free / 21 * 20 >= needed,
                 "{}: no space left: a checkpoint takes {} and 5% in reserve, {} are free",
                 temporary_.string(), format_bytes(needed), format_bytes(free));
  std::vector<std::unique_ptr<WritableFile>> made;  // all of them, before a byte is written
  for (const SavedFile& file : layout_) made.push_back(files_.create(temporary_ / file.name, file.bytes()));
  for (size_t i = 0; i < made.size(); ++i) {
    made[i]->append(as_bytes(layout_[i].head));
    made[i]->sync();
    made[i]->close();
  }
}

std::vector<int64_t> CheckpointWriter::write() {
  std::vector<int64_t> digests(static_cast<size_t>(digests_));
  for (const SavedFile& file : layout_) {
    Runs runs(ranges_, temporary_ / file.name);
    for (const SavedTensor& tensor : file.tensors) {
      const Share share = share_of(tensor.name);
      const at::Tensor rows = as_rows(share.rows);
      if (rows.numel() == 0) continue;
      RETORT_ASSERT(share.begin % share.step == 0);
      const models::RowBlocks blocks{0, rows.size(0), share.step};
      uint64_t at = tensor.begin + static_cast<uint64_t>(share.begin) * row_bytes(rows);
      int64_t number = places_.at(tensor.name).first_digest + share.begin / share.step;
      for (int64_t b = 0; b < blocks.count() && rows.numel() > 0;
           ++b) {  // no more of a device's is here at once
        const at::Tensor host = rows.slice(0, blocks[b].begin, blocks[b].end).cpu().contiguous();
        digests[static_cast<size_t>(number++)] = static_cast<int64_t>(xxh3(host_bytes(host)));
        runs.write(at, host_bytes(host));
        at += host.nbytes();
      }
    }
    runs.finish();
  }
  content_.shares.clear(), content_.weights.clear(), content_.optimizer.clear(), places_.clear();
  return digests;
}

void CheckpointWriter::commit(std::span<const int64_t> digests, int64_t keep) const {
  std::vector<uint64_t> all;
  for (const int64_t digest : digests) all.push_back(static_cast<uint64_t>(digest));
  write_text(files_, temporary_ / kManifest, manifest_text(content_.step, content_.extra, layout_, all));
  files_.sync_directory(temporary_);
  try {
    load_checkpoint(temporary_);
  } catch (const Error& error) {
    fail<IoError>("what was written does not read back: {}", error.what());
  }
  // A damaged checkpoint of this step is there when a fallback has trained up to it again.
  if (std::filesystem::exists(path_)) files_.rename(path_, path_.string() + ".tmp.old." + suffix_);
  files_.rename(temporary_, path_);
  files_.sync_directory(directory_);
  finish_save(files_, directory_, content_.step, keep, content_.best);
  remove_later(files_, directory_, content_.step);
}

void CheckpointWriter::discard() const noexcept {
  try {
    files_.remove_all(temporary_);
  } catch (const std::exception&) {  // the first error is the one to tell; the next save removes it
  }
}

}  // namespace retort::train
