// The sum of gradients over all micro-batches of all ranks, of which each rank keeps the rows that it owns
// (train/owners.h). Micro-batches are taken in turns (train/micro_batches.h): after each one every rank sends the
// owners their rows, and an owner adds what it gets to the tree over the global numbers (comm/tree_sum.h). Of several
// groups each has the sums of a run of all micro-batches, which are joined at the end.
//
// Parameters of one working dtype, in which they are sent, are buckets, and a bucket goes out in pieces
// (models/gradient_buckets.h). So no more is alive of whole gradients than what backward has made and no bucket has sent,
// and two pieces under way, each of which is at most a bucket's bytes to send and as many to receive. Buckets start in the
// order in which backward completes them, the same on every rank. One rank, one thread; collective.
#pragma once

#include <ATen/ATen.h>

#include <deque>
#include <vector>

#include "comm/comm.h"
#include "comm/tree_sum.h"
#include "models/gradient_buckets.h"
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
  struct Bucket : models::GradientBucket {
    std::vector<at::Tensor> gradients;  // of this micro-batch, by member
    size_t missing = 0;                 // of those
    std::vector<int64_t> owned;         // elements of each rank's rows, member after member
    int64_t piece = 0;                  // of those, at most
    // Of this rank's rows, f32: level n has the n-th sum that the trees of all pieces hold, which are views of it.
    std::vector<at::Tensor> levels;
    std::vector<comm::TreeSum<at::Tensor, Add>> trees;
    at::Tensor total_N;
  };
  struct Flight {
    Bucket& bucket;
    int64_t number;                    // of the piece
    int64_t turn;                      // micro-batch
    at::Tensor packed_N;               // the piece of all owners
    std::vector<at::Tensor> received;  // of each rank
    comm::Pending arrival;
  };
  void join_groups();
  int64_t row_elements(size_t i, int rank) const;
  int64_t count_of(const Bucket& bucket, int64_t number, int rank) const;
  void copy_owned(const Bucket& bucket, int rank, int64_t begin, const at::Tensor& to_N) const;
  at::Tensor pack(const Bucket& bucket, int64_t number) const;
  void start(Bucket& bucket);
  void send(Bucket& bucket, int64_t number);
  void land();
  void settle(Bucket& bucket, int64_t number, int64_t turn);

  std::vector<const models::Parameter*> parameters_;
  const Owners& owners_;
  comm::Comm& comm_;  // the group that divides
  int64_t run_;       // micro-batches of the group
  std::vector<Bucket> buckets_;
  std::vector<std::pair<size_t, size_t>>
      place_;  // of each parameter: bucket and member; a scale's is past the end
  std::deque<Flight> flights_;
  size_t started_ = 0;  // buckets of this micro-batch
  int64_t turn_ = 0;    // micro-batches that are complete
};

}  // namespace retort::train
