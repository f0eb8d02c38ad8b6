// Saves that ranks make together, while training goes on or not. A rank copies the rows that it writes to host memory,
// which is all that training waits for, and a thread of it writes them. The group of ranks is used by the caller's thread
// alone: what the ranks have come through they tell one another in poll(), between two steps, and in finish().
//
// One save at a time; it takes memory for one copy of what a rank writes, which stays for the next one. Collective: every
// rank makes the same calls. An IoError of any rank is the save's failure; other exceptions pass on the rank that had them.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "train/checkpoint_writer.h"

namespace retort::train {

std::vector<std::string> save_kinds();  // "async", "sync"

struct SaveResult {
  int64_t step = 0;
  std::string failure;  // of the lowest rank that had one; "": the checkpoint is there
};

class Saver {
 public:
  using Clock = std::chrono::steady_clock;
  // kind: of save_kinds(). "sync" writes on the caller's thread, in finish(), from the tensors themselves.
  Saver(FileSystem& files, RangeFiles& ranges, comm::Comm& comm, Path directory, int64_t keep,
        const std::string& kind);
  ~Saver();  // waits for this rank's thread. A save of one rank is whole then, one of several is not
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  bool in_background() const { return background_; }
  bool under_way() const { return writer_ != nullptr; }
  // Begins, when no save is under way. `committed` is called on rank 0's thread, after the checkpoint is there, with the
  // seconds from `since` to when training could go on.
  void start(CheckpointContent content, Clock::time_point since,
             std::function<void(double seconds)> committed);
  std::optional<SaveResult> poll();  // of the save under way, once it is through
  SaveResult finish();               // waits for it
  uint64_t copied_bytes() const;     // that it holds

 private:
  enum class Part { kReserve, kWrite, kCommit };
  void copy_to_host(CheckpointContent& content);
  void begin(Part part);
  void work(Part part);
  void add_up_digests();
  std::optional<SaveResult> advance(bool wait);
  SaveResult ended(const std::string& failure);

  FileSystem& files_;
  RangeFiles& ranges_;
  comm::Comm& comm_;
  Path directory_;
  int64_t keep_;
  bool background_;
  std::map<std::string, at::Tensor> copies_;  // by name
  std::unique_ptr<CheckpointWriter> writer_;  // of the save under way
  int64_t step_ = 0;
  Clock::time_point since_;
  double stall_ = 0;  // seconds, where it is over before the writing begins
  std::function<void(double)> committed_;
  Part part_ = Part::kReserve;
  std::vector<int64_t> digests_;
  std::optional<std::string> failure_;  // of this rank, in this part
  std::future<void> job_;               // this part's, until it was heard; last, for it uses the others
};

}  // namespace retort::train
