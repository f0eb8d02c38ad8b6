// Which rows of each tensor a rank owns, where ranks divide them: a run of all elements, cut where blocks begin, by the rule
// of train/owners.h. Pure functions.
#pragma once

#include <vector>

#include "models/gradient_buckets.h"

namespace retort::plan {

struct Rows {
  int64_t elements = 0;
  kernels::RowBlocks blocks;  // all rows
  bool scale = false;         // of a grid, whose rows go with its weight's
  int64_t row() const { return elements / blocks.end; }
};

class OwnedRows {
 public:
  OwnedRows(std::vector<Rows> tensors, int64_t ranks) : tensors_(std::move(tensors)), ranks_(ranks) {
    for (const Rows& one : tensors_) {
      before_.push_back(total_);
      if (!one.scale) total_ += one.elements;
    }
  }
  int64_t total() const { return total_; }  // elements that are shared out
  kernels::RowBlocks of(size_t i, int64_t rank) const {
    return {first(i, rank), first(i, rank + 1), tensors_[i].blocks.step};
  }
  int64_t elements(size_t i, int64_t rank) const {
    return (first(i, rank + 1) - first(i, rank)) * tensors_[i].row();
  }
  // The ranks that may own some of a tensor. Cuts lie where blocks begin, so the last one may begin before its share does.
  int64_t first_owner(size_t i) const { return owner_at(before_[i]); }
  int64_t last_owner(size_t i) const {
    return std::min(ranks_ - 1, owner_at(before_[i] + tensors_[i].elements) + 1);
  }

 private:
  int64_t first(size_t i, int64_t rank) const {
    const Rows& one = tensors_[i];
    if (rank == ranks_) return one.blocks.end;
    if (one.scale) return one.blocks.end * rank / ranks_;
    return models::row_at(one.blocks, one.row(), total_ * rank / ranks_ - before_[i]);
  }
  int64_t owner_at(int64_t element) const { return std::min(ranks_ - 1, element * ranks_ / total_); }

  std::vector<Rows> tensors_;
  int64_t ranks_, total_ = 0;
  std::vector<int64_t> before_;
};

}  // namespace retort::plan
