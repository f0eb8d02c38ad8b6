// What a rank has of gradients while backward makes them, where ranks divide them: bytes at each moment, by the buckets and
// pieces in which the run sends them (models/gradient_buckets.h, train/scattered_sum.h): gradients whose bucket is not
// sent, two pieces under way, each packed and as it arrives from all ranks, and f32 sums of what the rank owns. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "models/gradient_buckets.h"
#include "plan/backward_pass.h"

namespace retort::plan {

// How all ranks' gradients are packed and who owns what of them; `gradients` outlive it.
struct GradientLayout {
  struct Bucket {
    models::GradientBucket filled;
    double item = 4;                                 // bytes of an element
    std::vector<std::pair<int64_t, int64_t>> owned;  // elements of each rank that has some, by rank
    int64_t piece = 0, pieces = 0;
    double adding = 0;  // bytes for each element of a piece while its leaves are added up
    int64_t of(int64_t rank) const;
  };
  GradientLayout(const std::vector<MadeGradient>& gradients, bool bf16, int64_t ranks, int64_t bucket_bytes);
  double bytes(size_t i) const;  // of a gradient as backward makes it

  const std::vector<MadeGradient>& gradients;
  bool bf16;
  int64_t ranks;
  OwnedRows owners;
  std::vector<Bucket> buckets;
  std::vector<size_t> place;  // the bucket of each gradient
};

class GradientFlow {
 public:
  GradientFlow(const GradientLayout& layout, int64_t rank);  // which outlives it
  // Before the rank's micro-batch of this number; the first has none before it.
  void begin_turn(int64_t turn);
  // Gradient i is made and whole. Both return the most that there is meanwhile.
  double add(size_t i);
  double finish(
      double rows_across);  // rows of the tree over groups, which the sums are copied to; 0: one group
  double now() const { return now_; }
  const GradientLayout& layout() const { return layout_; }
  double share() const;  // that the rank owns of all elements

 private:
  struct Bucket {
    int64_t mine = 0;  // elements of this rank
    size_t missing = 0;
    double waiting = 0;  // bytes of gradients
    double levels = 0;   // sums of this rank's rows
  };
  struct Flight {
    size_t bucket = 0;
    int64_t number = 0;
    double packed = 0, received = 0;
    double before = 0, after = 0;  // sums of a row, of its turn
  };
  void start(size_t b);
  void send(size_t b, int64_t number);
  void land();
  void set(double& bytes, double to);
  void mark(double more = 0);

  const GradientLayout& layout_;
  std::vector<Bucket> buckets_;
  std::deque<Flight> flights_;
  size_t started_ = 0;
  double before_turn_ = 0, after_turn_ = 0;  // sums of a row
  double now_ = 0, most_ = 0;
};

}  // namespace retort::plan
