#include "core/log.h"

#include <unistd.h>

#include <algorithm>

namespace retort {

Log::Log(std::FILE* out, std::string prefix, bool quiet)
    : out_(out), prefix_(std::move(prefix)), quiet_(quiet), terminal_(::isatty(::fileno(out)) == 1) {}

void Log::line(const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (drawn_ > 0) fmt::print(out_, "\r{:{}}\r", "", std::exchange(drawn_, 0));
  fmt::print(out_, "{}{}\n", prefix_, text);
  std::fflush(out_);
}

void Log::draw(const std::string& text) {
  const std::lock_guard lock(mutex_);
  fmt::print(out_, "\r{}{:{}}", text, "", drawn_ > text.size() ? drawn_ - text.size() : 0);
  drawn_ = text.size();
  std::fflush(out_);
}

Progress::Progress(Log& log, std::string label, int64_t total, std::string rate_unit, double per_unit,
                   double plain_seconds)
    : log_(log),
      label_(std::move(label)),
      rate_unit_(std::move(rate_unit)),
      total_(total),
      per_unit_(per_unit),
      plain_seconds_(plain_seconds),
      start_(Clock::now()),
      shown_(start_) {}

void Progress::update(int64_t done, std::string_view note) {
  const auto now = Clock::now();
  if (first_ < 0) {  // a resumed run starts in the middle: the rate counts from the first update
    first_ = done;
    start_ = now;
  }
  last_ = done;
  if (log_.quiet()) return;
  const double since = std::chrono::duration<double>(now - shown_).count();
  if (since < (log_.terminal() ? 0.2 : plain_seconds_)) return;
  shown_ = now;
  const std::string line = text(done, note, now);
  log_.terminal() ? log_.draw(line) : log_.line(line);
}

void Progress::finish(std::string_view note) {
  if (!log_.quiet()) log_.line(text(last_, note, Clock::now()));
}

std::string Progress::text(int64_t done, std::string_view note, Clock::time_point now) const {
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double work = static_cast<double>(done - std::max<int64_t>(first_, 0));
  const double speed = seconds > 0 ? work / seconds : 0.0;
  std::string out = fmt::format("{}  {}/{}", label_, done, total_);
  if (total_ > 0) out += fmt::format("  {}%", done * 100 / total_);
  if (!rate_unit_.empty() && speed > 0)
    out += fmt::format("  {} {}/s", format_rate(speed * per_unit_), rate_unit_);
  if (done < total_ && speed > 0)
    out += fmt::format("  {} left", format_seconds(static_cast<double>(total_ - done) / speed));
  if (done >= total_) out += fmt::format("  {}", format_seconds(seconds));
  if (!note.empty()) out += fmt::format("  {}", note);
  return out;
}

std::string format_seconds(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
}

std::string format_rate(double v) {
  if (v < 1e3) return fmt::format("{:.0f}", v);
  if (v < 1e6) return fmt::format("{:.1f}k", v / 1e3);
  return fmt::format("{:.2f}M", v / 1e6);
}

std::string format_bytes(uint64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (bytes < 1000) return fmt::format("{} B", bytes);
  if (b < 1e6) return fmt::format("{:.1f} kB", b / 1e3);
  if (b < 1e9) return fmt::format("{:.1f} MB", b / 1e6);
  return fmt::format("{:.2f} GB", b / 1e9);
}

}  // namespace retort
