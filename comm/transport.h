// How bytes move between the ranks of a group: one blocking operation, from which queued_comm builds every
// collective. Each rank has one, which its worker thread alone uses, except for interrupt().
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace retort::comm {

// Thrown by exchange(): these peers did not take part in time.
struct MissingRanks {
  std::vector<int> ranks;
  double seconds;
  enum class How { kWatched, kSilent, kAlone } how = How::kWatched;
  std::string text() const;  // "waited 5 s for rank 1 (...)"
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;

  // Collective. send[p] goes to rank p and rank p fills receive[p]; the sizes at both ends agree, and an
  // empty span is no message. Own entries are ignored. Returns when the buffers are free again. Throws
  // MissingRanks after the group's timeout, CommError when the group has failed. A patient wait lasts up to
  // CommOptions::alone_seconds, but for the timeout only where a peer gives no sign of life.
  enum class Wait { kWatched, kPatient };
  virtual void exchange(const std::vector<std::span<const std::byte>>& send,
                        const std::vector<std::span<std::byte>>& receive, Wait wait) = 0;
  // Called by the worker between exchanges, at least every beat_seconds(): this process lives.
  virtual void beat() {}
  virtual double beat_seconds() const { return 3600.0; }
  // To the peers, before this rank ends the group: what they are told besides that it has left.
  virtual void tell(const std::string& /*why*/) noexcept {}
  // From any thread. An exchange under way and all later ones throw CommError, and the destructor ends the
  // group instead of leaving it.
  virtual void interrupt() noexcept = 0;
  [[noreturn]] virtual void abort(int exit_code) = 0;
};

}  // namespace retort::comm
