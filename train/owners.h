// Which rank owns which blocks of what is trained: whose moments it holds, and which it updates (models/placement.h).
// Divided, each rank owns a run of all blocks in declaration order, about as many elements as the others; else every
// rank owns all of them and the functions below cost nothing. Memory is all that it decides: the bits are the same.
// Collective, but for owned(). One rank, one thread. Zero redundancy, stage 1: Rajbhandari et al. 2020,
// arXiv 1910.02054; docs/launching.md.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <vector>

#include "comm/comm.h"
#include "train/trained.h"

namespace retort::train {

class Owners {
 public:
  // Narrows the placements of `trained` to this rank's, from the blocks that bind_working() has cut. They and the
  // group outlive it.
  Owners(const Trained& trained, comm::Comm& comm, bool divided);
  bool divided() const { return divided_; }
  // Of every block in declaration order, from this rank's own.
  std::vector<double> of_all_blocks(const std::vector<double>& mine) const;
  // Gives every rank the masters' rows that others have updated.
  void share_masters() const;
  // On rank 0 a whole tensor of p's shape, of which each rank has the rows that it owns; undefined elsewhere.
  at::Tensor gather(const models::Parameter& p, const at::Tensor& rows) const;

 private:
  comm::Comm& comm_;
  bool divided_;
  std::vector<models::Parameter*> all_;                              // the trained ones
  std::map<const models::Parameter*, std::vector<int64_t>> bounds_;  // rank r owns rows [r] to [r + 1]
  std::vector<int64_t> blocks_;                                      // of each rank
};

// The rows of a tensor of p's shape that this rank owns.
at::Tensor owned(const models::Parameter& p, const at::Tensor& whole);

}  // namespace retort::train
