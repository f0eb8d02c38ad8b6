#include "train/micro_batches.h"

#include "comm/tree_sum.h"
#include "core/error.h"
#include "train/owners.h"

namespace retort::train {
namespace {

struct Add {
  at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const { return left + right; }
};

}  // namespace

MicroBatches::MicroBatches(comm::Comm& comm, int64_t each, const Owners* owners)
    : comm_(comm),
      each_(each),
      turn_(owners != nullptr && owners->divides_gradients() ? owners->group().size() : 1) {
  check<ConfigError>(each >= 1, "[micro_batches] a step needs at least 1 micro-batch, got {}", each);
}

int64_t MicroBatches::number(int64_t index) const {
  return comm_.rank() / turn_ * each_ * turn_ + index * turn_ + comm_.rank() % turn_;
}

at::Tensor MicroBatches::sum(const std::vector<at::Tensor>& mine) const {
  RETORT_ASSERT(std::ssize(mine) == each_);
  const at::Tensor mine_GN = at::stack(mine).reshape({each_, -1});
  const at::Tensor all_RGN = at::empty({comm_.size(), each_, mine_GN.size(1)}, mine_GN.options());
  comm_.all_gather(all_RGN, mine_GN).wait();
  comm::TreeSum<at::Tensor, Add> tree;
  for (int64_t m = 0; m < all(); ++m) {
    const int64_t first = m / (each_ * turn_) * turn_, in_group = m % (each_ * turn_);
    tree.push(all_RGN[first + in_group % turn_][in_group / turn_]);
  }
  return tree.finish().view(mine.front().sizes());
}

}  // namespace retort::train
