// Where the time of some steps goes, by operation: LibTorch's own, and those of kernels/ that name themselves
// (RECORD_USER_SCOPE_WITH_INPUTS). Of each: calls, and, by itself (without operations inside it), time, FLOPs, bytes. On a device every
// operation is waited for, so that its time is its own: the steps are slower than others, and the shares are what counts.
// Micro-batches that are repeated as graphs call no operation, and one that is captured cannot be waited for: TrainStep
// runs them one by one meanwhile.
//
//   FLOPs   of products, 2 M K N, and of attention by the convention of plan/flops.h: 4 B H T S K forward, 8 B H T S K backward,
//           the full square. What else is computed is small beside them.
//   bytes   that an operation of LibTorch's reads and writes: its operands, without those of operations inside it; of ours, the tensors
//           that it names and those that it makes. Views and new memory are not traffic.
//
// One at a time in a process, which LibTorch's callbacks demand; made, read and destroyed by one thread, while it and the
// threads of its backward passes work. Ranks that are threads count together.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

namespace retort::train {

struct ProfileRow {
  std::string name;
  int64_t calls = 0;
  double seconds = 0, flops = 0, bytes = 0;
};

// What a rank's device does at most in a second; 0: unknown.
struct Ceilings {
  double flops = 0;  // of products
  double bytes = 0;  // of a copy, read and written
};
// Of a copy of 64 MiB, which is waited for.
double measured_copy_rate(const at::Device& device);

class Profile {
 public:
  explicit Profile(const at::Device& device);
  ~Profile();
  void stop();                           // nothing is recorded after it
  std::vector<ProfileRow> rows() const;  // the longest first; the last is the time between operations
  // A Markdown table of the longest, the rest in one row, and what all of it comes to. A row's share of the ceiling is that of
  // products where it has FLOPs, else that of a copy where it has bytes.
  std::string table(int64_t steps, const Ceilings& ceilings = {}) const;
  // For chrome://tracing and Perfetto (Trace Event Format, complete events).
  std::string trace() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::train
