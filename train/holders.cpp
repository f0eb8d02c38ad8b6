#include "train/holders.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <set>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/log.h"

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

}  // namespace

std::vector<Holder> holders_of(const StepParts& parts, int64_t micro_batches) {
  Sums sum;
  Holder masters{"masters", 0, "adapters (with a base in codes) or a smaller model need less"},
      copies{"working copies", 0, "train.precision: bf16, or a smaller model needs less"},
      codes{"a frozen base in codes", 0, "a base of fewer bits needs less"},
      moments{"the optimizer's state", 0, kMoreRanks}, gradients{"gradients", 0, kMoreRanks};
  const Trained trained(parts.model.parameters(), parts.objective.learned());
  // A running sum a level of the tree, beside the gradient that backward makes.
  const auto sums = static_cast<uint64_t>(comm::most_subtrees(micro_batches, parts.comm.size())) + 1;
  for (const models::Parameter* p : trained.all()) {
    masters.bytes += sum(p->master);
    copies.bytes += sum(p->working);
    if (p->codes) codes.bytes += p->codes->bytes();
    if (!p->frozen) gradients.bytes += sums * sizeof(float) * static_cast<uint64_t>(p->numel());
  }
  for (const auto& [name, tensor] : parts.optimizer.state()) moments.bytes += sum(tensor);
  std::vector<Holder> out;
  for (Holder& one : std::vector{masters, copies, codes, moments, gradients})
    if (one.bytes > 0) out.push_back(std::move(one));
  std::ranges::stable_sort(out, std::greater(), &Holder::bytes);
  return out;
}

std::string text_of(const std::vector<Holder>& holders) {
  std::string out;
  for (const Holder& one : holders)
    out += (out.empty() ? "" : ", ") + fmt::format("{} {}", one.what, format_bytes(one.bytes));
  return out;
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

void fail_of_memory(int64_t step, const std::string& refusal, const std::vector<Holder>& holders,
                    int64_t rows) {
  std::string remedy =
      rows > 1 ? fmt::format("data.micro_batch below {} makes a step need less, at the same result", rows)
               : "a shorter data.sequence makes a step need less";
  if (!holders.empty()) remedy += fmt::format("; {}: {}", holders.front().what, holders.front().remedy);
  fail<ConfigError>("[train] step {}: out of memory ({}). Between steps it is held by {}. {}", step, refusal,
                    text_of(holders), remedy);
}

}  // namespace retort::train
