#include "core/inject.h"

#include <unistd.h>

#include <bit>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "core/error.h"

namespace retort {
namespace {

const std::map<std::string_view, InjectionPoint>& points() {
  static const std::map<std::string_view, InjectionPoint> table = {
      {"before_step", InjectionPoint::kBeforeStep},
      {"backward", InjectionPoint::kBackward},
      {"after_backward", InjectionPoint::kAfterBackward},
      {"after_update", InjectionPoint::kAfterUpdate},
      {"save", InjectionPoint::kSave}};
  return table;
}

const std::map<std::string_view, int>& signals() {
  static const std::map<std::string_view, int> table = {
      {"kill", SIGKILL}, {"stop", SIGSTOP}, {"sigterm", SIGTERM}, {"sigusr1", SIGUSR1}};
  return table;
}

// Cuts the text before `mark` off `rest`.
std::string_view cut(std::string_view& rest, std::string_view mark) {
  const size_t end = std::min(rest.find(mark), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + mark.size(), rest.size()));
  return part;
}

int64_t number_in(std::string_view text, int64_t low, int64_t high, std::string_view what) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  check<ConfigError>(code == std::errc() && end == text.data() + text.size() && value >= low && value <= high,
                     "RETORT_INJECT: {} must be an integer in [{}, {}], got \"{}\"", what, low, high, text);
  return value;
}

void flip(const at::Tensor& victim, int64_t index, int64_t bit) {
  const at::Tensor element = victim.view({-1})[index];
  const auto bits = std::bit_cast<uint32_t>(element.item<float>()) ^ (uint32_t{1} << bit);
  element.fill_(std::bit_cast<float>(bits));
}

}  // namespace

Injection::Injection(std::string_view text) {
  while (!text.empty()) faults_.push_back(parse(cut(text, ";")));
}

Injection Injection::from_environment() {
  const char* text = std::getenv("RETORT_INJECT");
  return text == nullptr ? Injection() : Injection(text);
}

Injection::Fault Injection::parse(std::string_view text) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  Fault fault;
  fault.text = text;
  bool placed = false, chosen = false;
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view value = cut(rest, ",");
    const std::string_view key = cut(value, "=");
    if (key == "rank") {
      fault.rank = static_cast<int>(number_in(value, 0, kMost, key));
    } else if (key == "step") {
      const std::string_view first = cut(value, "..");
      fault.first = number_in(first, 1, kMost, key) - 1;
      fault.last = value.empty() ? fault.first : number_in(value, 1, kMost, key) - 1;
    } else if (key == "times") {
      fault.times = number_in(value, 0, kMost, key);
    } else if (key == "point") {
      const auto found = points().find(value);
      check<ConfigError>(found != points().end(),
                         "RETORT_INJECT: point must be before_step, backward, after_backward, after_update "
                         "or save, got \"{}\"",
                         value);
      fault.point = found->second, placed = true;
    } else if (key == "fault") {
      set_kind(fault, value), chosen = true;
    } else {
      fail<ConfigError>("RETORT_INJECT: a key must be rank, step, point, fault or times, got \"{}\"", key);
    }
  }
  check<ConfigError>(placed && chosen, "RETORT_INJECT: a fault needs point= and fault=, got \"{}\"", text);
  const bool has_value = fault.point != InjectionPoint::kBeforeStep && fault.point != InjectionPoint::kSave;
  check<ConfigError>(has_value || fault.kind < Kind::kNan,
                     "RETORT_INJECT: before_step and save have no value to spoil, got \"{}\"", text);
  return fault;
}

void Injection::set_kind(Fault& fault, std::string_view text) {
  const std::string_view name = cut(text, ":");
  if (const auto signal = signals().find(name); signal != signals().end()) {
    fault.kind = Kind::kSignal, fault.number = signal->second;
  } else if (name == "slow") {
    fault.kind = Kind::kSlow, fault.number = number_in(std::exchange(text, {}), 1, 3'600'000, "slow");
  } else if (name == "bitflip") {
    fault.kind = Kind::kFlip;
    fault.number = text.empty() ? 20 : number_in(std::exchange(text, {}), 0, 31, "bitflip");
  } else {
    static const std::map<std::string_view, Kind> others = {
        {"hang", Kind::kHang}, {"throw", Kind::kThrow}, {"nan", Kind::kNan}, {"inf", Kind::kInf}};
    const auto found = others.find(name);
    check<ConfigError>(
        found != others.end(),
        "RETORT_INJECT: fault must be kill, stop, sigterm, sigusr1, hang, throw, slow:MS, nan, "
        "inf or bitflip[:BIT], got \"{}\"",
        name);
    fault.kind = found->second;
  }
  check<ConfigError>(text.empty(), "RETORT_INJECT: {} takes no number, got \"{}\"", name, text);
}

bool Injection::Fault::due(InjectionPoint at, int on_rank, int64_t step) const {
  return at == point && (rank < 0 || rank == on_rank) && step >= first && step <= last &&
         (times == 0 || struck < times);
}

bool Injection::due(InjectionPoint point, int rank, int64_t step) const {
  for (const Fault& fault : faults_)
    if (fault.due(point, rank, step)) return true;
  return false;
}

void Injection::strike(InjectionPoint point, int rank, int64_t step, const at::Tensor& victim) {
  for (Fault& fault : faults_) {
    if (!fault.due(point, rank, step)) continue;
    ++fault.struck;
    do_fault(fault, step, victim);
  }
}

void Injection::do_fault(const Fault& fault, int64_t step, const at::Tensor& victim) {
  const at::NoGradGuard no_grad;
  const int64_t middle = victim.defined() ? victim.numel() / 2 : 0;
  switch (fault.kind) {
    case Kind::kSignal:
      ::kill(::getpid(), static_cast<int>(fault.number));
      return;
    case Kind::kHang:
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    case Kind::kThrow:
      fail<InternalError>("RETORT_INJECT: step {}: {}", step + 1, fault.text);
    case Kind::kSlow:
      std::this_thread::sleep_for(std::chrono::milliseconds(fault.number));
      return;
    case Kind::kNan:
      victim.view({-1})[middle].fill_(std::numeric_limits<double>::quiet_NaN());
      return;
    case Kind::kInf:
      victim.view({-1})[middle].fill_(std::numeric_limits<double>::infinity());
      return;
    case Kind::kFlip:
      flip(victim, middle, fault.number);
      return;
  }
}

}  // namespace retort
