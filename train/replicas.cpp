#include "train/replicas.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <vector>

#include "comm/together.h"
#include "core/digest.h"
#include "core/host_tensor.h"

namespace retort::train {

formats::NamedTensors replicated_weights(const StepParts& parts) {
  formats::NamedTensors out;
  const Trained trained(parts.model.parameters(), parts.objective.learned());
  const Owners* owners = parts.owners;
  for (const models::Parameter* p : trained.all()) {
    const bool divided = owners != nullptr && owners->has_rows_alone(*p);
    if (divided && owners->gathered() != nullptr && owners->gathered()->has(*p)) continue;
    if (!p->borrowed) out.emplace_back(p->name, divided ? p->working.detach() : p->master);
  }
  return out;
}

formats::NamedTensors shared_state(const StepParts& parts) {
  formats::NamedTensors state = parts.optimizer.state(), shared;
  if (parts.owners == nullptr || !parts.owners->divided()) return state;
  const auto parameters = parts.optimizer.state_parameters();
  for (size_t i = 0; i < state.size(); ++i)
    if (parameters[i] == nullptr) shared.push_back(std::move(state[i]));
  return shared;
}

uint64_t digest_of(const formats::NamedTensors& tensors) {
  Digest digest;
  for (const auto& [name, tensor] : tensors) {
    digest.add(as_bytes(name));
    const at::Tensor here = tensor.cpu();  // one at a time
    digest.add(host_bytes(here));
  }
  return digest.value();
}

void compare_replicas(comm::Comm& comm, int64_t step, const formats::NamedTensors& weights) {
  if (comm.size() == 1) return;
  const at::Tensor all_R = at::zeros({comm.size(), 1}, at::kLong);
  comm.all_gather(all_R, at::full({1}, static_cast<int64_t>(digest_of(weights)), at::kLong)).wait();
  const std::span<const int64_t> digests = host_values<const int64_t>(all_R);
  std::map<int64_t, std::vector<size_t>> ranks;
  for (size_t rank = 0; rank < digests.size(); ++rank) ranks[digests[rank]].push_back(rank);
  if (ranks.size() == 1) return;
  const auto most = std::ranges::max_element(ranks, {}, [](const auto& one) { return one.second.size(); });
  std::vector<size_t> odd;
  const bool majority = 2 * most->second.size() > digests.size();
  for (const auto& [digest, of] : ranks)
    if (!majority || digest != most->first) odd.insert(odd.end(), of.begin(), of.end());
  std::ranges::sort(odd);
  throw comm::SharedError(
      fmt::format(
          "[train] step {}: the weights of rank{} {} differ from those of the others: memory or a processor "
          "there is at fault, and nothing was saved; checkpoints so far, if any, are whole",
          step, odd.size() > 1 ? "s" : "", fmt::join(odd, ", ")),
      kFaultyMachine, comm.rank() == 0);
}

}  // namespace retort::train
