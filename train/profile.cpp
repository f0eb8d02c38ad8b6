#include "train/profile.h"

#include <ATen/record_function.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/table.h"
#include "formats/json.h"
#include "kernels/device_rate.h"

namespace retort::train {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kShown = 24;  // rows of a table

double bytes_of(const c10::IValue& value) {
  if (value.isTensor() && value.toTensor().defined()) return static_cast<double>(value.toTensor().nbytes());
  double sum = 0;
  if (value.isTensorList())
    for (const at::Tensor& x : value.toTensorVector()) sum += static_cast<double>(x.nbytes());
  return sum;
}

double product_of(const at::Tensor& a, const at::Tensor& b) {
  return 2.0 * static_cast<double>(a.numel()) * static_cast<double>(b.size(-1));
}

// Of products: what the others compute is small beside it.
double flops_of(std::string_view name, c10::ArrayRef<const c10::IValue> inputs) {
  const bool sum = name == "aten::addmm" || name == "aten::baddbmm";
  if (!sum && name != "aten::mm" && name != "aten::bmm" && name != "retort::bf16_product") return 0;
  const size_t first = sum ? 1 : 0;
  if (inputs.size() < first + 2 || !inputs[first].isTensor() || !inputs[first + 1].isTensor()) return 0;
  return product_of(inputs[first].toTensor(), inputs[first + 1].toTensor());
}

struct Call {
  const std::string* name = nullptr;  // the recorder's
  int64_t thread = 0;
  Clock::time_point start, end;
  double inner = 0;  // seconds of the calls inside it
  double flops = 0, bytes = 0;
  double seconds() const { return std::chrono::duration<double>(end - start).count(); }
};

struct Recorder {
  at::Device device = at::kCPU;
  int64_t thread = 0;  // that made it
  std::mutex mutex;
  std::vector<Call> calls;  // that have ended
  // Each once: a copy a call would lie between the steps' large blocks, which the heap could then not join again.
  std::set<std::string> names;
  double outer = 0;  // seconds of those of its thread that are inside no other
};

// LibTorch's callbacks are plain functions, so that what they write to is found by one.
std::atomic<Recorder*> active = nullptr;

int64_t this_thread() {
  static std::atomic<int64_t> next = 0;
  thread_local const int64_t number = next++;
  return number;
}

struct Begun final : at::ObserverContext {
  Call call;
  Begun* around = nullptr;
};
thread_local Begun* innermost = nullptr;

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  auto begun = std::make_unique<Begun>();
  begun->around = std::exchange(innermost, begun.get());
  Call& call = begun->call;
  call.thread = this_thread();
  call.flops = flops_of(function.name(), function.inputs());
  for (const c10::IValue& input : function.inputs()) call.bytes += bytes_of(input);
  call.start = Clock::now();
  return begun;
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* const begun = static_cast<Begun*>(context);
  innermost = begun->around;
  Recorder* const recorder = active;
  if (recorder == nullptr) return;
  Call& call = begun->call;
  kernels::wait_for(recorder->device);
  call.end = Clock::now();
  for (const c10::IValue& output : function.outputs()) call.bytes += bytes_of(output);
  if (begun->around != nullptr) begun->around->call.inner += call.seconds();
  const std::lock_guard lock(recorder->mutex);
  call.name = &*recorder->names.emplace(function.name()).first;
  if (begun->around == nullptr && call.thread == recorder->thread) recorder->outer += call.seconds();
  recorder->calls.push_back(std::move(call));
}

std::string share(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "-";
}

}  // namespace

struct Profile::State {
  Recorder recorder;
  Clock::time_point start, end;
  at::CallbackHandle handle = at::INVALID_CALLBACK_HANDLE;
  double seconds() const { return std::chrono::duration<double>(end - start).count(); }
};

Profile::Profile(const at::Device& device) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.recorder.device = device;
  s.recorder.thread = this_thread();
  Recorder* nobody = nullptr;
  check<InternalError>(active.compare_exchange_strong(nobody, &s.recorder), "[profile] there is one already");
  s.handle = at::addGlobalCallback(at::RecordFunctionCallback(begin, end)
                                       .needsInputs(true)
                                       .needsOutputs(true)
                                       .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
                                                at::RecordScope::USER_SCOPE}));
  s.start = s.end = Clock::now();
}

Profile::~Profile() { stop(); }

void Profile::stop() {
  State& s = *state_;
  if (s.handle == at::INVALID_CALLBACK_HANDLE) return;
  kernels::wait_for(s.recorder.device);
  s.end = Clock::now();
  at::removeCallback(std::exchange(s.handle, at::INVALID_CALLBACK_HANDLE));
  active = nullptr;
}

std::vector<ProfileRow> Profile::rows() const {
  std::map<std::string, ProfileRow> by_name;
  for (const Call& call : state_->recorder.calls) {
    ProfileRow& row = by_name[*call.name];
    row.name = *call.name;
    ++row.calls;
    row.seconds += call.seconds() - call.inner;
    row.flops += call.flops;
    row.bytes += call.bytes;
  }
  std::vector<ProfileRow> out;
  for (auto& [name, row] : by_name) out.push_back(std::move(row));
  std::ranges::stable_sort(out, std::greater(), &ProfileRow::seconds);
  out.push_back({"between operations", 0, std::max(0.0, state_->seconds() - state_->recorder.outer)});
  return out;
}

std::string Profile::table(int64_t steps) const {
  std::vector<ProfileRow> all = rows();
  ProfileRow total{"all"}, rest{"others"};
  for (const ProfileRow& row : all)
    total.seconds += row.seconds, total.flops += row.flops, total.bytes += row.bytes,
        total.calls += row.calls;
  while (all.size() > kShown + 1) {
    const ProfileRow row = std::move(all[kShown]);
    all.erase(all.begin() + kShown);
    rest.seconds += row.seconds, rest.flops += row.flops, rest.bytes += row.bytes, rest.calls += row.calls;
  }
  if (rest.calls > 0) all.insert(all.end() - 1, rest);
  all.push_back(total);
  std::vector<std::vector<std::string>> cells{
      {"operation", "calls a step", "ms a step", "share", "GFLOP a step", "GFLOP/s", "MB a step", "GB/s"}};
  const auto count = static_cast<double>(steps);
  for (const ProfileRow& row : all) {
    const auto rate = [&](double amount) {
      return amount > 0 && row.seconds > 0 ? fmt::format("{:.1f}", 1e-9 * amount / row.seconds) : "-";
    };
    const auto amount = [&](double x, double unit) {
      return x > 0 ? fmt::format("{:.2f}", unit * x / count) : "-";
    };
    cells.push_back({row.name, fmt::format("{:.1f}", static_cast<double>(row.calls) / count),
                     fmt::format("{:.2f}", 1e3 * row.seconds / count), share(row.seconds, total.seconds),
                     amount(row.flops, 1e-9), rate(row.flops), amount(row.bytes, 1e-6), rate(row.bytes)});
  }
  return markdown_table(cells);
}

std::string Profile::trace() const {
  formats::Json events = formats::Json::array();
  const auto microseconds = [&](Clock::time_point at) {
    return std::chrono::duration<double, std::micro>(at - state_->start).count();
  };
  for (const Call& call : state_->recorder.calls) {
    formats::Json event{{"name", *call.name},
                        {"ph", "X"},
                        {"pid", 0},
                        {"tid", call.thread},
                        {"ts", microseconds(call.start)},
                        {"dur", 1e6 * call.seconds()},
                        {"args", {{"bytes", call.bytes}}}};
    if (call.flops > 0) event["args"]["flops"] = call.flops;
    events.push_back(std::move(event));
  }
  return formats::Json{{"traceEvents", std::move(events)}}.dump() + "\n";
}

}  // namespace retort::train
