// One save in parts, of one rank or of several that write one checkpoint together: it is reserved by one rank, written by
// every rank, each its rows, and committed by the first one. Each part begins when every rank has come through the one before
// (train/saver.h); none of them talks to other ranks. The bytes do not depend on who writes what.
// Throws IoError; after one, discard().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "train/manifest.h"
#include "train/range_files.h"

namespace retort::train {

// Of a tensor the rows that one rank writes.
struct Share {
  at::Tensor rows;
  int64_t begin = 0;  // the first one's number in the whole tensor, a multiple of `step`
  int64_t step = 1;   // rows of a block, which has a digest of its own: the same on every rank
};

struct CheckpointContent {
  int64_t step = 0;     // updates done, and so the data position
  formats::Json extra;  // tokens seen, skip journal, model spec, tokenizer: small facts by name
  std::string recipe;   // resolved YAML
  std::map<std::string, std::string> tokenizer = {};  // its files by name (data::tokenizer_files)
  formats::NamedTensors weights, optimizer;
  // Of tensors on at::kMeta, which have a shape alone: what this rank writes. Others are written whole.
  std::map<std::string, Share> shares = {};
  int64_t best = -1;  // the step of an older checkpoint that stays as well
};

class CheckpointWriter {
 public:
  // What it makes below `directory` ends in `suffix`, the same on every rank, until it is whole.
  CheckpointWriter(FileSystem& files, RangeFiles& ranges, const Path& directory, CheckpointContent content,
                   const std::string& suffix);
  // Makes the files, with room for all their bytes, once there is 5% more than they take.
  void reserve() const;
  // Writes this rank's rows, and lets go of them. Returns a digest for every block of all tensors; of those that others
  // write it is 0.
  std::vector<int64_t> write();
  // With the sum of what write() returned on all ranks: reads all of it back and verifies it, gives it its name, moves
  // LATEST and keeps the newest `keep`.
  void commit(std::span<const int64_t> digests, int64_t keep) const;
  void discard() const noexcept;

 private:
  struct Place {
    at::Tensor whole;      // on at::kMeta, where there is a share
    int64_t step;          // rows of a block
    int64_t first_digest;  // its number among all
  };
  void add_file(const std::string& name, const formats::NamedTensors& tensors);
  Share share_of(const std::string& name) const;

  FileSystem& files_;
  RangeFiles& ranges_;
  Path directory_, path_, temporary_;
  CheckpointContent content_;
  std::vector<SavedFile> layout_;
  std::map<std::string, Place> places_;
  int64_t digests_ = 0;  // how many
  std::string suffix_;
};

}  // namespace retort::train
