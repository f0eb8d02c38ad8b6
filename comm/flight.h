// The flight recorder of a rank: its last 64 collectives, and how long ranks have waited for each other. An error that
// ends the group writes it into a folder, as flight-rank-R.json:
//
//   {"rank", "size", "over", "error", "failed", "waited": {rank: seconds}, "operations": [{"number", "group", "name", "bytes",
//    "started", "ended"}]}         seconds since 1970; ended is null for what was under way. group: "" is all ranks
//
// Who has waited least while the others waited has held them up: straggler(). Barriers are left out of it, since others
// work alone there. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "core/file.h"

namespace retort::comm {

class Flight {
 public:
  static constexpr size_t kKept = 64;
  struct Operation {
    int64_t number = 0;  // of its group
    std::string group, name;
    int64_t bytes = 0;
    double started = 0;
    std::optional<double> ended = std::nullopt;
  };
  struct Straggler {
    int rank = 0;
    double seconds = 0;  // that the others have waited, each, more than this one
    double of = 0;       // seconds since the group began
  };

  Flight(int rank, int size, std::string over) : rank_(rank), size_(size), over_(std::move(over)) {}
  void begin(Operation operation);        // `started` is set here
  void end();                             // of the one that began last
  void waited(int rank, double seconds);  // in all
  double own_wait() const;
  // Ends the record with this error, and writes it where write_to() has said, which removes an older one.
  void fail(const std::string& error);
  void write_to(Path folder);
  int rank() const { return rank_; }

  std::string now()
      const;  // "in all_reduce ... (number 7) for 12 s", "outside collectives for 3 s, after ..."
  std::string json() const;
  std::optional<Straggler> straggler() const;  // nothing: nobody has waited

 private:
  std::string text() const;
  Path path() const;

  const int rank_, size_;
  const std::string over_;
  mutable std::mutex mutex_;
  std::deque<Operation> operations_;
  std::map<int, double> waited_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string error_;
  double failed_ = 0;
  Path folder_;
};

}  // namespace retort::comm
