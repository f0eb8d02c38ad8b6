// The order of a schedule's collectives, and whether it can run: each rank's part runs by itself over a Comm that notes
// what is called and ends it at once, with values as they are. Then the notes are played: a collective is over when every
// rank of its group is there.
//
//   Trace trace(4);
//   for (int rank = 0; rank < 4; ++rank) schedule(*trace.rank(rank));
//   trace.problem()     ""; or the ranks that call different things, or wait for each other for ever, and what they call
//
// One thread. For schedules that do not look at what they receive.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"

namespace retort::comm {

class Trace {
 public:
  // One call of one rank. `what` is equal on all ranks of the group.
  struct Call {
    std::vector<int> group;  // ranks of the whole
    std::string what;
    std::vector<std::string> sends, receives;  // of exchange, by place in the group; "": none
  };

  explicit Trace(int ranks) : calls_(static_cast<size_t>(ranks)) {}
  // Once for each rank. The trace outlives it.
  std::unique_ptr<Comm> rank(int rank);
  const std::vector<std::vector<Call>>& calls() const { return calls_; }  // by rank
  std::string problem() const;

 private:
  std::vector<std::vector<Call>> calls_;
};

}  // namespace retort::comm
