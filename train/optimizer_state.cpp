#include "train/optimizer_state.h"

#include <algorithm>

#include "core/error.h"

namespace retort::train {
namespace {

constexpr int64_t kFinished = -1;

}  // namespace

OptimizerState::OptimizerState(const Optimizer& optimizer, const Owners* owners, comm::Comm& comm)
    : owners_(owners != nullptr && owners->divided() ? owners : nullptr),
      comm_(comm),
      state_(optimizer.state()),
      parameters_(optimizer.state_parameters()) {
  RETORT_ASSERT(state_.size() == parameters_.size());
}

bool OptimizerState::is_divided(size_t i) const { return owners_ != nullptr && parameters_[i] != nullptr; }

formats::NamedTensors OptimizerState::tensors() const {
  formats::NamedTensors out = state_;
  for (size_t i = 0; i < out.size(); ++i)
    if (is_divided(i))
      out[i].second = at::empty(parameters_[i]->shape, out[i].second.options().device(at::kMeta));
  return out;
}

at::Tensor OptimizerState::fetch(const std::string& name) const {
  const auto found = std::ranges::find(state_, name, &formats::NamedTensors::value_type::first);
  RETORT_ASSERT(found != state_.end());
  const int64_t i = found - state_.begin();
  ask(i);
  return gather(static_cast<size_t>(i));
}

void OptimizerState::finish() const {
  if (owners_ != nullptr) ask(kFinished);
}

void OptimizerState::serve() const {
  if (owners_ == nullptr) return;
  for (int64_t i = ask(0); i != kFinished; i = ask(0)) gather(static_cast<size_t>(i));
}

// Rank 0's number, on every rank. However long rank 0 has been writing before.
int64_t OptimizerState::ask(int64_t number) const {
  comm_.barrier();
  const at::Tensor wanted = at::tensor(number);
  comm_.broadcast(wanted, 0).wait();
  return wanted.item<int64_t>();
}

at::Tensor OptimizerState::gather(size_t i) const {
  return owners_->gather(*parameters_[i], state_[i].second);
}

}  // namespace retort::train
