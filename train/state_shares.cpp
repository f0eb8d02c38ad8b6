#include "train/state_shares.h"

#include "models/written_rows.h"

namespace retort::train {
namespace {

// `holder` of `holders` ranks that have these rows, which begin at row `begin` of the whole tensor, takes its blocks.
Share share_of(const at::Tensor& rows, int64_t begin, int64_t step, int64_t holder, int64_t holders) {
  const models::RowBlock mine = models::written_rows({0, rows.size(0), step}, holder, holders);
  return {rows.slice(0, mine.begin, mine.end), begin + mine.begin, step};
}

}  // namespace

StateShares shares_of(const Trained& trained, const Optimizer& optimizer, const Owners* owners,
                      const comm::Comm& comm) {
  const bool dividing = owners != nullptr && owners->divided();
  StateShares out;
  // p: whose rows these are, nullptr for what has none. divided: others of this rank's group have its other rows.
  const auto add = [&](formats::NamedTensors& list, const std::string& name, const at::Tensor& tensor,
                       const models::Parameter* p, bool divided) {
    const at::Tensor rows = tensor.dim() == 0 ? tensor.detach().view({1}) : tensor.detach();
    const int64_t step = p != nullptr ? p->placement.owned.step : models::cut_into_blocks(rows.sizes()).step;
    list.emplace_back(name, at::empty(divided ? at::IntArrayRef(p->shape) : tensor.sizes(),
                                      tensor.options().device(at::kMeta)));
    out.shares[name] = divided ? share_of(rows, p->placement.owned.begin, step, owners->replica(),
                                          comm.size() / owners->group().size())
                               : share_of(rows, 0, step, comm.rank(), comm.size());
  };
  for (const models::Parameter* p : trained.all())
    if (!p->borrowed) add(out.weights, p->name, p->master, p, dividing && owners->has_rows_alone(*p));
  const std::vector<const models::Parameter*> parameters = optimizer.state_parameters();
  for (size_t i = 0; const auto& [name, tensor] : optimizer.state()) {
    const models::Parameter* p = parameters[i++];
    add(out.optimizer, name, tensor, p, dividing && p != nullptr);
  }
  return out;
}

}  // namespace retort::train
