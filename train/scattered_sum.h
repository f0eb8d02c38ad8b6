// The sum of gradients over all micro-batches of all ranks, of which each rank keeps the rows that it owns
// (train/owners.h). Micro-batches are taken in turns (train/micro_batches.h): after each one every rank sends the
// owners their rows, and an owner adds what it gets to the tree over the global numbers (comm/tree_sum.h). So no more
// is alive of whole gradients than what backward has made and a few buckets under way. Of several
// groups each has the sums of a run of all micro-batches, which are joined at the end.
//
// Buckets hold parameters of one working dtype, in which they are sent. They start in the order in which backward
// completes them, the same on every rank. One rank, one thread; collective.
#pragma once

#include <ATen/ATen.h>

#include <deque>
#include <vector>

#include "comm/comm.h"
#include "comm/tree_sum.h"
#include "train/owners.h"

namespace retort::train {

class ScatteredSum {
 public:
  // Trained parameters in declaration order, which have working copies; all outlive it.
  // micro_batches: a rank's.
  ScatteredSum(std::vector<const models::Parameter*> parameters, const Owners& owners, int64_t micro_batches,
               int64_t bucket_bytes);
  // Also after a step that has ended in an exception, as long as the group is whole.
  void begin_step();
  // Parameter i's gradient of this micro-batch, once; undefined: zeros. A learned scale has none from backward.
  void add(size_t i, at::Tensor gradient);
  // The sums of each parameter's owned rows, f32; no two use the same memory. Valid until the next begin_step().
  std::vector<at::Tensor> finish();

 private:
  struct Add {
    at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const { return left.add_(right); }
  };
  struct Bucket {
    std::vector<size_t> members;
    at::ScalarType dtype = at::kFloat;
    int64_t elements = 0;
    std::vector<int64_t> bounds;         // rank r owns elements [r] to [r + 1] of the packed bucket
    std::vector<at::Tensor> gradients;   // of this micro-batch, by member
    size_t missing = 0;                  // of those
    comm::TreeSum<at::Tensor, Add> sum;  // of this rank's run, f32
    at::Tensor total_N;
  };
  struct Flight {
    Bucket& bucket;
    std::vector<at::Tensor> received;  // of each rank
    comm::Pending arrival;
  };
  void fill_buckets(int64_t bucket_bytes);
  void join_groups();
  std::vector<int64_t> bounds_of(const Bucket& bucket) const;
  int64_t row_elements(size_t i, int rank) const;
  at::Tensor pack(const Bucket& bucket) const;
  void start(Bucket& bucket);
  void land();

  std::vector<const models::Parameter*> parameters_;
  const Owners& owners_;
  comm::Comm& comm_;  // the group that divides
  int64_t run_;       // micro-batches of the group
  std::vector<Bucket> buckets_;
  std::vector<std::pair<size_t, size_t>>
      place_;  // of each parameter: bucket and member; a scale's is past the end
  std::deque<Flight> flights_;
  size_t started_ = 0;  // buckets of this micro-batch
};

}  // namespace retort::train
