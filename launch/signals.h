// Stopping a run from outside: while it lives, the first SIGINT, SIGTERM, SIGHUP (its terminal is gone) or
// SIGUSR1 (which mpirun forwards without a kill) asks the run to save and stop, and another of its kind has
// its default action, at any time from a second after it: within the second it is the same one, which GNU
// timeout sends to the process and then to its group. A SIGHUP that whoever started it ignores (nohup) stays
// ignored. A process that was asked ends with the code that it has earned: srun, mpirun and torchrun send
// SIGTERM to all ranks as soon as the first has ended with 75, so after a request the signals stay blocked.
//
// A thread waits for the signals and all others block them; no handler is installed, and none that returns
// may be. oneDNN's AVX-512 products run with the stack pointer inside a workspace on the heap: a handler on
// such a thread would write its frame over what lies there.
//
// One at a time, made before the process has other threads: they inherit what it blocks. InternalError where
// the system refuses.
#pragma once

#include <csignal>

#include <atomic>
#include <thread>

namespace retort::launch {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  const std::atomic<bool>& requested() const { return requested_; }

 private:
  void wait();

  sigset_t signals_ = {}, before_ = {};
  std::atomic<bool> requested_{false}, over_{false};
  std::thread thread_;
};

// A file that grows beyond the process's limit (ulimit -f) is an error of the write, EFBIG, and no death.
void fail_at_file_limits();

}  // namespace retort::launch
