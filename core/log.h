// What a run says: lines to stderr (stdout belongs to a verb's product, such as generated text), and a
// progress line with rate and time left, redrawn on a terminal and printed plainly now and then elsewhere.
// A Log is passed by reference, never global. Thread-safe. Rank 0 speaks; other ranks pass `quiet` and
// still print warnings, prefixed with their rank.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace retort {

class Log {
 public:
  explicit Log(std::FILE* out = stderr, std::string prefix = "", bool quiet = false);

  template <class... Args>
  void info(fmt::format_string<Args...> text, Args&&... args) {
    if (!quiet_) line(fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void warn(fmt::format_string<Args...> text, Args&&... args) {
    line("warning: " + fmt::format(text, std::forward<Args>(args)...));
  }
  bool quiet() const { return quiet_; }
  bool terminal() const { return terminal_; }

 private:
  friend class Progress;
  void line(const std::string& text);
  void draw(const std::string& text);  // the progress line; terminal only
  std::mutex mutex_;
  std::FILE* out_;
  std::string prefix_;
  bool quiet_, terminal_;
  size_t drawn_ = 0;  // characters of the progress line on screen
};

// Progress through `total` units of work: "teacher  320/800  41%  9.8k tok/s  1m12s left  loss 1.42".
// update() may be called as often as work is done; it draws at most 5 times a second on a terminal and
// prints a line every `plain_seconds` elsewhere. finish() leaves one last line.
class Progress {
 public:
  // `rate_unit` is what the rate counts ("tok"), with `per_unit` of them in one unit of work.
  Progress(Log& log, std::string label, int64_t total, std::string rate_unit = "", double per_unit = 1.0,
           double plain_seconds = 10.0);
  void update(int64_t done, std::string_view note = {});
  void finish(std::string_view note = {});

 private:
  using Clock = std::chrono::steady_clock;
  std::string text(int64_t done, std::string_view note, Clock::time_point now) const;
  Log& log_;
  std::string label_, rate_unit_;
  int64_t total_, first_ = -1, last_ = 0;
  double per_unit_, plain_seconds_;
  Clock::time_point start_, shown_;
};

std::string format_seconds(double seconds);  // 48s, 3m05s, 2h10m
std::string format_rate(double per_second);  // 950, 9.8k, 1.25M
std::string format_bytes(uint64_t bytes);    // 912 B, 4.4 MB

}  // namespace retort
