#include "train/whole_state.h"

#include <algorithm>

#include "core/error.h"

namespace retort::train {
namespace {

constexpr int64_t kFinished = -1;

}  // namespace

WholeState::WholeState(const Trained& trained, const Optimizer& optimizer, const Owners* owners,
                       comm::Comm& comm)
    : owners_(owners != nullptr && owners->divided() ? owners : nullptr), comm_(comm) {
  for (const models::Parameter* p : trained.all())
    if (!p->borrowed)
      weights_.push_back(
          {p->name, p->master, owners_ != nullptr && owners_->has_rows_alone(*p) ? p : nullptr});
  const std::vector<const models::Parameter*> parameters = optimizer.state_parameters();
  for (size_t i = 0; const auto& [name, tensor] : optimizer.state())
    optimizer_.push_back({name, tensor, owners_ != nullptr ? parameters[i++] : nullptr});
}

formats::NamedTensors WholeState::whole(const std::vector<Entry>& entries) const {
  formats::NamedTensors out;
  for (const Entry& e : entries)
    out.emplace_back(e.name, e.divided == nullptr
                                 ? e.rows
                                 : at::empty(e.divided->shape, e.rows.options().device(at::kMeta)));
  return out;
}

formats::NamedTensors WholeState::weights() const { return whole(weights_); }
formats::NamedTensors WholeState::optimizer() const { return whole(optimizer_); }

// Weights have the first numbers.
at::Tensor WholeState::gather(int64_t number) const {
  const int64_t weights = std::ssize(weights_);
  const Entry& e = number < weights ? weights_[static_cast<size_t>(number)]
                                    : optimizer_[static_cast<size_t>(number - weights)];
  return owners_->gather(*e.divided, e.rows);
}

at::Tensor WholeState::fetch(const std::string& name) const {
  int64_t number = 0;
  for (const auto* entries : {&weights_, &optimizer_})
    for (const Entry& e : *entries) {
      if (e.name == name && e.divided != nullptr) return gather(ask(number));
      ++number;
    }
  fail<InternalError>("[whole_state] {} is not divided", name);
}

void WholeState::finish() const {
  if (owners_ != nullptr) ask(kFinished);
}

void WholeState::serve() const {
  if (owners_ == nullptr) return;
  for (int64_t i = ask(0); i != kFinished; i = ask(0))
    if (owners_->replica() == 0) gather(i);  // the other groups have the same
}

// Rank 0's number, on every rank. However long rank 0 has been writing before.
int64_t WholeState::ask(int64_t number) const {
  comm_.barrier();
  const at::Tensor wanted = at::tensor(number);
  comm_.broadcast(wanted, 0).wait();
  return wanted.item<int64_t>();
}

}  // namespace retort::train
