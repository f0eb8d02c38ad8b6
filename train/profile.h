// Where the time of some steps goes, by operation: LibTorch's own, and those of kernels/ that name themselves
// (RECORD_USER_SCOPE). Of each: calls, time by itself (without operations inside it), bytes of tensors in and out, FLOPs of
// products. On a device every operation is waited for, so that its time is its own: the steps are slower than others, and
// the shares are what counts.
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

class Profile {
 public:
  explicit Profile(const at::Device& device);
  ~Profile();
  void stop();                           // nothing is recorded after it
  std::vector<ProfileRow> rows() const;  // the longest first; the last is the time between operations
  // A Markdown table of the longest, the rest in one row, and what all of it comes to.
  std::string table(int64_t steps) const;
  // For chrome://tracing and Perfetto (Trace Event Format, complete events).
  std::string trace() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::train
