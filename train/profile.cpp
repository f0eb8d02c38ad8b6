#include "train/profile.h"

#include <ATen/core/function_schema.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/jit_type.h>
#include <ATen/record_function.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>

#include "core/error.h"
#include "core/table.h"
#include "formats/json.h"
#include "kernels/device_rate.h"

namespace retort::train {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kShown = 24;                   // rows of a table
constexpr int64_t kCopied = int64_t{64} << 20;  // bytes, more than most caches hold
constexpr int kCopies = 5;

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

// Of attention every query multiplies with `keys` keys, and their values.
struct Attends {
  const char* name;
  size_t query;  // which input it is; a backward pass has the gradient before it, and twice the products
  std::optional<int64_t> keys_dimension;  // of the input after it
  size_t keys = 0;                        // else the input that says how many
};
constexpr Attends kAttends[] = {
    {"retort::attention", 0, 1},
    {"retort::attention_backward", 1, 1},
    {"aten::_flash_attention_forward", 0, {}, 6},
    {"aten::_flash_attention_backward", 1, {}, 9},
    {"aten::_efficient_attention_forward", 0, 1},
    {"aten::_efficient_attention_backward", 1, 1},
    {"aten::_cudnn_attention_forward", 0, -2},
    {"aten::_cudnn_attention_backward", 1, -2},
    {"aten::_scaled_dot_product_flash_attention", 0, -2},
    {"aten::_scaled_dot_product_flash_attention_backward", 1, -2},
    {"aten::_scaled_dot_product_flash_attention_for_cpu", 0, -2},
    {"aten::_scaled_dot_product_flash_attention_for_cpu_backward", 1, -2},
    {"aten::_scaled_dot_product_efficient_attention", 0, -2},
    {"aten::_scaled_dot_product_efficient_attention_backward", 1, -2},
    {"aten::_scaled_dot_product_cudnn_attention", 0, -2},
    {"aten::_scaled_dot_product_cudnn_attention_backward", 1, -2},
};

using Inputs = c10::ArrayRef<const c10::IValue>;

double attention_flops(const Attends& attends, Inputs inputs) {
  if (inputs.size() <= std::max(attends.query + 1, attends.keys) || !inputs[attends.query].isTensor() ||
      !inputs[attends.query + 1].isTensor())
    return 0;
  const c10::IValue& given = inputs[attends.keys];
  const bool counted = attends.keys_dimension.has_value();
  if (!counted && !given.isInt()) return 0;
  const int64_t keys =
      counted ? inputs[attends.query + 1].toTensor().size(*attends.keys_dimension) : given.toInt();
  const double passes = attends.query == 0 ? 1 : 2;
  return passes * 4 * static_cast<double>(inputs[attends.query].toTensor().numel()) *
         static_cast<double>(keys);
}

double flops_of(std::string_view name, Inputs inputs) {
  const auto* const attends = std::ranges::find(kAttends, name, &Attends::name);
  if (attends != std::end(kAttends)) return attention_flops(*attends, inputs);
  const bool sum = name == "aten::addmm" || name == "aten::addmm_" || name == "aten::baddbmm";
  if (!sum && name != "aten::mm" && name != "aten::bmm" && name != "retort::bf16_product") return 0;
  const size_t first = sum ? 1 : 0;
  if (inputs.size() < first + 2 || !inputs[first].isTensor() || !inputs[first + 1].isTensor()) return 0;
  return product_of(inputs[first].toTensor(), inputs[first + 1].toTensor());
}

// What an operation does to memory.
struct Traffic {
  enum class Kind { kNone, kMakes, kOperator, kOurs } kind = Kind::kNone;
  size_t first = 0, last = std::numeric_limits<size_t>::max();  // the inputs that it reads whole
  bool looks_up = false;                                        // of its first input, as much as it returns
};

template <size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

// Which neither read nor write, though their schema does not tell.
constexpr std::string_view kViews[] = {
    "aten::_unsafe_view", "aten::resize_",  "aten::resize_as_", "aten::set_",        "aten::t_",
    "aten::transpose_",   "aten::squeeze_", "aten::unsqueeze_", "aten::as_strided_", "aten::detach_"};
constexpr std::string_view kMakers[] = {"aten::empty", "aten::empty_like", "aten::empty_strided",
                                        "aten::new_empty", "aten::new_empty_strided"};
constexpr std::string_view kOverwrite[] = {"aten::copy_", "aten::fill_", "aten::zero_"};
constexpr std::string_view kLookUps[] = {"aten::embedding", "aten::index_select", "aten::index",
                                         "aten::gather"};

// An operator whose results are other names of its inputs is a view, or copies by an operator inside it; one that returns no
// tensor asks about one.
bool returns_new_values(const c10::FunctionSchema& schema) {
  return std::ranges::any_of(schema.returns(), [](const c10::Argument& one) {
    const bool tensors = one.type()->isSubtypeOf(*c10::TensorType::get()) ||
                         one.type()->isSubtypeOf(*c10::ListType::ofTensors());
    return tensors && (one.alias_info() == nullptr || one.alias_info()->isWrite());
  });
}

Traffic traffic_of(const at::RecordFunction& function) {
  using Kind = Traffic::Kind;
  const std::string_view name = function.name();
  if (function.scope() == at::RecordScope::BACKWARD_FUNCTION) return {};
  const auto schema = function.operator_schema();
  if (!schema) return {name.starts_with("retort::") ? Kind::kOurs : Kind::kNone};
  if (among(kMakers, name)) return {Kind::kMakes};
  if (among(kViews, name) || !returns_new_values(*schema)) return {};
  Traffic out{Kind::kOperator};
  out.looks_up = among(kLookUps, name);
  out.first = out.looks_up || among(kOverwrite, name) ? 1 : 0;
  const auto& arguments = schema->arguments();
  const auto written = std::ranges::find_if(arguments, &c10::Argument::is_out);
  out.last = static_cast<size_t>(written - arguments.begin());
  return out;
}

double sum_of_bytes(Inputs values, size_t first, size_t last) {
  double sum = 0;
  for (size_t i = first; i < std::min(last, values.size()); ++i) sum += bytes_of(values[i]);
  return sum;
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
  std::unordered_map<c10::OperatorName, Traffic> traffic;  // of LibTorch's operators
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
  Traffic traffic;
  double inner_flops = 0, inner_bytes = 0;  // of operations inside it
  double made = 0;                          // bytes of the memory that it asked for
  bool composed = false;                    // of operations that multiply, or are ours
};
thread_local Begun* innermost = nullptr;

// By operator, as schemas are copied to be read.
Traffic traffic_of(Recorder& recorder, const at::RecordFunction& function) {
  const auto name = function.operator_name();
  if (!name) return traffic_of(function);
  const std::lock_guard lock(recorder.mutex);
  const auto known = recorder.traffic.find(*name);
  return known != recorder.traffic.end()
             ? known->second
             : recorder.traffic.emplace(*name, traffic_of(function)).first->second;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  Recorder* const recorder = active;
  if (recorder == nullptr) return nullptr;
  auto begun = std::make_unique<Begun>();
  begun->around = std::exchange(innermost, begun.get());
  begun->traffic = traffic_of(*recorder, function);
  Call& call = begun->call;
  call.thread = this_thread();
  call.flops = flops_of(function.name(), function.inputs());
  call.bytes = sum_of_bytes(function.inputs(), begun->traffic.first, begun->traffic.last);
  call.start = Clock::now();
  return begun;
}

// Leaves a call what is its own, and tells the one around it what there was.
void settle(Begun& begun, double out) {
  using Kind = Traffic::Kind;
  Call& call = begun.call;
  const Kind kind = begun.traffic.kind;
  const double flops = std::max(call.flops, begun.inner_flops);
  double bytes = begun.inner_bytes;
  if (kind == Kind::kOperator) bytes = std::max(bytes, call.bytes + (begun.traffic.looks_up ? 2 : 1) * out);
  const bool names_operands = kind == Kind::kOurs && call.bytes > 0 && !begun.composed;
  const double own = names_operands ? call.bytes + begun.made : bytes - begun.inner_bytes;
  if (names_operands) bytes += own;
  call.flops = flops - begun.inner_flops;
  call.bytes = own;
  if (Begun* const around = begun.around) {
    around->call.inner += call.seconds();
    around->inner_flops += flops;
    around->inner_bytes += bytes;
    if (kind == Kind::kMakes) around->made += out;
    around->composed = around->composed || begun.composed || flops > 0 || names_operands;
  }
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* const begun = static_cast<Begun*>(context);
  if (begun == nullptr) return;
  innermost = begun->around;
  Recorder* const recorder = active;
  if (recorder == nullptr) return;
  Call& call = begun->call;
  kernels::wait_for(recorder->device);
  call.end = Clock::now();
  const std::vector<c10::IValue>& outputs = function.outputs();
  settle(*begun, sum_of_bytes(Inputs(outputs.data(), outputs.size()), 0, outputs.size()));
  const std::lock_guard lock(recorder->mutex);
  call.name = &*recorder->names.emplace(function.name()).first;
  if (begun->around == nullptr && call.thread == recorder->thread) recorder->outer += call.seconds();
  recorder->calls.push_back(std::move(call));
}

std::string share(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "-";
}

// Of products where there are any; rows without wait for memory.
std::string share_of_ceiling(const ProfileRow& row, const Ceilings& ceilings) {
  const bool multiplies = row.flops > 0;
  const double most = row.seconds * (multiplies ? ceilings.flops : ceilings.bytes);
  const double done = multiplies ? row.flops : row.bytes;
  if (most <= 0 || done <= 0) return "-";
  return share(done, most) + (multiplies ? " of products" : " of a copy");
}

std::vector<std::string> cells_of(const ProfileRow& row, const ProfileRow& total, double steps,
                                  const Ceilings& ceilings) {
  const auto rate = [&](double amount) {
    return amount > 0 && row.seconds > 0 ? fmt::format("{:.1f}", 1e-9 * amount / row.seconds) : "-";
  };
  const auto amount = [&](double x, double unit) {
    return x > 0 ? fmt::format("{:.2f}", unit * x / steps) : "-";
  };
  return {row.name,
          fmt::format("{:.1f}", static_cast<double>(row.calls) / steps),
          fmt::format("{:.2f}", 1e3 * row.seconds / steps),
          share(row.seconds, total.seconds),
          amount(row.flops, 1e-9),
          rate(row.flops),
          amount(row.bytes, 1e-6),
          rate(row.bytes),
          share_of_ceiling(row, ceilings)};
}

}  // namespace

double measured_copy_rate(const at::Device& device) {
  const at::NoGradGuard no_grad;
  const at::Tensor from = at::zeros({kCopied}, at::TensorOptions(device).dtype(at::kByte)),
                   to = at::zeros_like(from);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kCopies; ++i) {
    kernels::wait_for(device);
    const Clock::time_point start = Clock::now();
    to.copy_(from);
    kernels::wait_for(device);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return 2 * static_cast<double>(kCopied) / best;
}

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

std::string Profile::table(int64_t steps, const Ceilings& ceilings) const {
  std::vector<ProfileRow> all = rows();
  ProfileRow total{"all"}, rest{"others"};
  const auto add = [](ProfileRow& sum, const ProfileRow& row) {
    sum.seconds += row.seconds, sum.flops += row.flops, sum.bytes += row.bytes, sum.calls += row.calls;
  };
  for (const ProfileRow& row : all) add(total, row);
  while (all.size() > kShown + 1) {
    add(rest, all[kShown]);
    all.erase(all.begin() + kShown);
  }
  if (rest.calls > 0) all.insert(all.end() - 1, rest);
  all.push_back(total);
  std::vector<std::vector<std::string>> cells{{"operation", "calls a step", "ms a step", "share",
                                               "GFLOP a step", "GFLOP/s", "MB a step", "GB/s",
                                               "of the ceiling"}};
  for (const ProfileRow& row : all)
    cells.push_back(cells_of(row, total, static_cast<double>(steps), ceilings));
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
