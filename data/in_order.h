// Work on a sequence by several threads with results in order: read() -> work() -> write(), item by item.
// Each thread takes the next item (reads are one at a time, in order), works on it, and waits for its turn to
// write. So at most `threads` items exist at once, and what is written does not depend on `threads`.
// work() runs on any thread and must be safe there; read() and write() are never run twice at once.
// The first failure in the order of items, of whichever of the three, is thrown; earlier items are written.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace retort::data {

// read() gives std::optional<Item>, nothing at the end; work(Item) gives a Result for write(Result).
template <class Read, class Work, class Write>
void in_order(int64_t threads, Read read, Work work, Write write) {
  std::mutex reading, writing;
  std::condition_variable turn;
  int64_t items = 0, written = 0;
  bool ended = false, failed = false;  // ended: of reading; failed: of writing
  std::exception_ptr error;

  // Its turn comes after the items before it; false when one of those failed.
  const auto finish = [&](int64_t number, auto&& last) {
    std::unique_lock lock(writing);
    turn.wait(lock, [&] { return failed || written == number; });
    if (failed) return false;
    try {
      last();
      ++written;
    } catch (...) {
      error = std::current_exception();
      failed = true;
    }
    turn.notify_all();
    return !failed;
  };
  const auto run = [&] {
    for (bool more = true; more;) {
      std::unique_lock lock(reading);
      if (ended) return;
      const int64_t number = items++;
      try {
        auto item = read();
        ended = !item.has_value();
        if (ended) return;
        lock.unlock();
        auto result = work(std::move(*item));
        more = finish(number, [&] { write(std::move(result)); });
      } catch (...) {
        if (lock.owns_lock()) ended = true;
        lock = {};
        more = finish(number, [thrown = std::current_exception()] { std::rethrow_exception(thrown); });
      }
      if (!more) {
        const std::scoped_lock stop(reading);
        ended = true;
      }
    }
  };
  std::vector<std::jthread> others;
  for (int64_t i = 1; i < threads; ++i) others.emplace_back(run);
  run();
  others.clear();  // joins
  if (error) std::rethrow_exception(error);
}

}  // namespace retort::data
