#include "comm/flight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace retort::comm {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<int>(c));
    else
      out += c;
  }
  return out + '"';
}

}  // namespace

void Flight::begin(Operation operation) {
  operation.started = seconds_now();
  const std::lock_guard lock(mutex_);
  if (operations_.size() == kKept) operations_.pop_front();
  operations_.push_back(std::move(operation));
}

void Flight::end() {
  const std::lock_guard lock(mutex_);
  operations_.back().ended = seconds_now();
}

void Flight::waited(int rank, double seconds) {
  const std::lock_guard lock(mutex_);
  waited_[rank] = std::max(waited_[rank], seconds);
}

double Flight::own_wait() const {
  const std::lock_guard lock(mutex_);
  const auto found = waited_.find(rank_);
  return found == waited_.end() ? 0.0 : found->second;
}

void Flight::fail(const std::string& error) {
  const std::lock_guard lock(mutex_);
  error_ = error;
  failed_ = seconds_now();
  if (folder_.empty()) return;
  try {
    local_files().make_directories(folder_);
    write_durably(local_files(), path(), text());
  } catch (const std::exception& refused) {  // what has failed is told all the same
    fmt::print(stderr, "warning: the flight record was not written: {}\n", refused.what());
  }
}

void Flight::write_to(Path folder) {
  const std::lock_guard lock(mutex_);
  folder_ = std::move(folder);
  std::error_code ignored;
  std::filesystem::remove(path(), ignored);
}

Path Flight::path() const { return folder_ / fmt::format("flight-rank-{}.json", rank_); }

std::string Flight::now() const {
  const std::lock_guard lock(mutex_);
  if (operations_.empty()) return "before its first collective";
  const Operation& last = operations_.back();
  const double since = seconds_now() - last.ended.value_or(last.started);
  return last.ended ? fmt::format("outside collectives for {:.1f} s, after {}", since, last.name)
                    : fmt::format("in {} for {:.1f} s", last.name, since);
}

std::string Flight::json() const {
  const std::lock_guard lock(mutex_);
  return text();
}

std::string Flight::text() const {
  std::string waits, operations;
  for (const auto& [rank, seconds] : waited_)
    waits += fmt::format("{}\"{}\": {:.6f}", waits.empty() ? "" : ", ", rank, seconds);
  for (const Operation& one : operations_)
    operations += fmt::format(
        "{}\n  {{\"number\": {}, \"group\": {}, \"name\": {}, \"bytes\": {}, \"started\": {:.6f}, \"ended\": "
        "{}}}",
        operations.empty() ? "" : ",", one.number, quoted(one.group), quoted(one.name), one.bytes,
        one.started, one.ended ? fmt::format("{:.6f}", *one.ended) : "null");
  return fmt::format(
      "{{\"rank\": {}, \"size\": {}, \"over\": {}, \"error\": {}, \"failed\": {:.6f}, \"waited\": {{{}}}, "
      "\"operations\": "
      "[{}]}}\n",
      rank_, size_, quoted(over_), quoted(error_), failed_, waits, operations);
}

std::optional<Flight::Straggler> Flight::straggler() const {
  const std::lock_guard lock(mutex_);
  if (size_ < 2 || static_cast<int>(waited_.size()) < size_) return std::nullopt;
  const auto least = std::ranges::min_element(waited_, {}, [](const auto& one) { return one.second; });
  double more = 0;
  for (const auto& [rank, seconds] : waited_) more += seconds - least->second;
  const std::chrono::duration<double> of = std::chrono::steady_clock::now() - start_;
  return Straggler{least->first, more / (size_ - 1), of.count()};
}

}  // namespace retort::comm
