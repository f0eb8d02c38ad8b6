#include "train/holders.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <set>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/log.h"
#include "core/table.h"

namespace retort::train {
namespace {

// Adds up storages that no earlier sum has.
class Sums {
 public:
  uint64_t operator()(const at::Tensor& x) {
    if (!x.defined() || !x.has_storage()) return 0;
    return seen_.insert(x.storage().unsafeGetStorageImpl()).second ? x.storage().nbytes() : 0;
  }

 private:
  std::set<const void*> seen_;
};

constexpr const char* kMoreRanks = "parallel.shard: gradients on more ranks divides it";

struct Weights {
  Holder masters{"weights", 0, "adapters (with a base in codes) or a smaller model need less"},
      copies{"working", 0, "train.precision: bf16, or a smaller model needs less"};
  void add(const models::Parameter& p, Sums& sum) {
    if (p.master.device() == p.working.device()) masters.bytes += sum(p.master);
    copies.bytes += sum(p.working);
    if (p.codes) masters.bytes += p.codes->bytes();
  }
};

std::vector<Holder> largest_first(std::vector<Holder> all) {
  std::erase_if(all, [](const Holder& one) { return one.bytes == 0; });
  std::ranges::stable_sort(all, std::greater(), &Holder::bytes);
  return all;
}

}  // namespace

std::vector<Holder> holders_of(const StepParts& parts, int64_t micro_batches) {
  Sums sum;
  Weights weights;
  Holder moments{"optimizer", 0, kMoreRanks}, gradients{"gradients", 0, kMoreRanks};
  const Trained trained(parts.model.parameters(), parts.objective.learned());
  // A running sum a level of the tree, beside the gradient that backward makes.
  const auto sums = static_cast<uint64_t>(comm::most_subtrees(micro_batches, parts.comm.size())) + 1;
  for (const models::Parameter* p : trained.all()) {
    weights.add(*p, sum);
    if (!p->frozen) gradients.bytes += sums * sizeof(float) * static_cast<uint64_t>(p->numel());
  }
  for (const auto& [name, tensor] : parts.optimizer.state()) moments.bytes += sum(tensor);
  return largest_first({weights.masters, weights.copies, moments, gradients});
}

std::vector<Holder> holders_of(const models::Parameters& parameters) {
  Sums sum;
  Weights weights;
  for (const models::Parameter& p : parameters.unique()) weights.add(p, sum);
  return largest_first({weights.masters, weights.copies});
}

uint64_t bytes_of(const std::vector<Holder>& holders) {
  uint64_t sum = 0;
  for (const Holder& one : holders) sum += one.bytes;
  return sum;
}

std::string text_of(const std::vector<Holder>& holders, const std::optional<MemoryUse>& use) {
  std::string out;
  for (const Holder& one : holders)
    out += (out.empty() ? "" : ", ") + fmt::format("{} {}", one.what, format_bytes(one.bytes));
  if (use) out += fmt::format("; {} of {} are free", format_bytes(use->free), format_bytes(use->total));
  return out;
}

std::string table_of(std::vector<Holder> holders, const std::optional<MemoryUse>& use) {
  const uint64_t known = bytes_of(holders);
  if (use) {
    const uint64_t between = std::max(known, use->now);
    holders.push_back({"activations", std::max(between, use->peak) - between});
    holders.push_back({"other", between - known});
  }
  const uint64_t all = bytes_of(holders);
  std::vector<std::vector<std::string>> rows{{"memory", "bytes", "share"}};
  for (const Holder& one : holders)
    rows.push_back({one.what, format_bytes(one.bytes),
                    fmt::format("{:.1f} %", 100 * static_cast<double>(one.bytes) /
                                                static_cast<double>(std::max<uint64_t>(all, 1)))});
  rows.push_back({"all", format_bytes(all), "100.0 %"});
  if (use)
    rows.push_back({"free of " + format_bytes(use->total), format_bytes(use->free), "-"});
  else
    rows.push_back({"free", "unknown", "-"});
  return markdown_table(rows);
}

std::string refusal_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return "the system gives no more memory";
  const auto* const torch = dynamic_cast<const c10::Error*>(&error);
  if (torch == nullptr) return "";
  const std::string text = torch->what_without_backtrace();
  const bool memory = dynamic_cast<const c10::OutOfMemoryError*>(torch) != nullptr ||
                      text.find("can't allocate memory") != text.npos;
  return memory ? text.substr(0, text.find('\n')) : "";
}

void name_holders(const std::string& doing, const at::Device& device,
                  const std::function<std::vector<Holder>()>& holders, const std::string& remedy,
                  const std::function<void()>& work) {
  try {
    work();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    const std::string refusal = refusal_of_memory(error);
    if (refusal.empty()) throw;
    const std::vector<Holder> all = holders();
    std::string what = remedy;
    if (!all.empty()) what += fmt::format("; {}: {}", all.front().what, all.front().remedy);
    fail<ConfigError>("[memory] {}: out of memory ({}). What there is on {} between steps: {}. {}", doing,
                      refusal, device.str(), text_of(all, memory_use(device)), what);
  }
}

}  // namespace retort::train
