// Which rank owns which blocks of what is trained (models/placement.h): whose state it holds, and which it updates.
// Divided, each rank owns a run of all blocks in declaration order, about as many elements as the others, and a learned
// scale's rows go with its weight's; else every rank owns all of them and the functions below cost nothing. With replicas
// ranks are as many groups, one after another, each of which divides all of it (hybrid sharding). Memory is all that it
// decides: the bits are the same. Collective, but for owned(). One rank, one thread.
// Zero redundancy, stages 1 to 3: Rajbhandari et al. 2020, arXiv 1910.02054; docs/launching.md.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "comm/mesh.h"
#include "models/model.h"
#include "models/weight_map.h"
#include "train/gathered_weights.h"
#include "train/trained.h"

namespace retort::train {

// What ranks divide, each kind with those before it: the optimizer's moments; summed gradients, and the masters that
// have working copies apart from them; working weights, frozen ones too, and with them all their masters
// (train/gathered_weights.h).
enum class Divided { kNothing, kMoments, kGradients, kParameters };
std::vector<std::string> division_names();  // "none", "optimizer", "gradients", "parameters"
Divided division(const std::string& name);  // of those

class Owners {
 public:
  // Narrows the placements of `trained` to this rank's, from the blocks that bind_working() has cut; with kParameters
  // also those of what is frozen in `model`, which has weight_groups(). All outlive it, and the group does, whose size
  // `replicas` divides.
  Owners(const Trained& trained, comm::Comm& comm, Divided what, models::Model* model = nullptr,
         int64_t replicas = 1);
  bool divided() const { return what_ != Divided::kNothing; }
  bool divides_gradients() const { return what_ >= Divided::kGradients; }
  comm::Comm& group() const { return comm_; }  // which divides
  comm::Comm* across() const {
    comm::Comm& ranks = mesh_.axis(comm::Axis::kReplicas);
    return ranks.size() > 1 ? &ranks : nullptr;
  }  // ranks of all groups that own the same; nullptr: of one
  int64_t replica() const { return mesh_.place(comm::Axis::kReplicas); }  // this group's number
  // Of a divided parameter: rank r owns its rows [r] to [r + 1].
  const std::vector<int64_t>& bounds(const models::Parameter& p) const { return bounds_.at(&p); }
  // Of every block in declaration order, from this rank's own.
  std::vector<double> of_all_blocks(const std::vector<double>& mine) const;
  // Gives every rank what others have updated, masters or working values, and makes the working copies.
  void refresh(models::Parameters& model, models::WeightMap& map) const;
  // The same after the map has changed, when frozen copies are other values too.
  void refresh_all(models::Parameters& model, models::WeightMap& map) const;

  // Where gradients are divided, a master with a working copy apart from it keeps this rank's rows alone until it is
  // made whole; with kParameters so do the weights of the model's groups.
  void divide_weights();
  // The same of a model on at::kMeta that bind_working() has bound by an identity, with kParameters: `values` gives its whole
  // masters, one after another, of which this rank keeps its rows.
  using Values = std::function<at::Tensor(const models::Parameter&)>;
  void take_weights(const Values& values);
  void make_weights_whole();
  bool weights_divided() const { return rows_alone_; }           // at present
  bool has_rows_alone(const models::Parameter& p) const;         // of its master, at present
  at::Tensor whole_master(const models::Parameter& p) const;     // on every rank
  GatheredWeights* gathered() const { return gathered_.get(); }  // nullptr: working weights are whole

 private:
  void cut(const std::vector<models::Parameter*>& parameters);
  void make_working(const models::Parameter& p, models::WeightMap& map) const;
  std::vector<comm::Pending> share(const models::Parameter& p, const at::Tensor& whole) const;

  comm::Mesh mesh_;
  comm::Comm& comm_;  // its axis of shards
  Divided what_;
  models::Model* model_;
  bool rows_alone_ = false;                    // weights are divided
  std::vector<models::Parameter*> all_;        // the trained ones
  std::vector<models::Parameter*> frozen_;     // that are divided
  std::unique_ptr<GatheredWeights> gathered_;  // while they are
  std::set<const models::Parameter*> one_;     // of these: whose master is the working copy
  std::map<const models::Parameter*, std::vector<int64_t>> bounds_;  // rank r owns rows [r] to [r + 1]
  std::vector<int64_t> blocks_;                                      // of each rank
};

// The rows of a tensor of p's shape that this rank owns; the tensor itself where it has no others.
at::Tensor owned(const models::Parameter& p, const at::Tensor& tensor);

}  // namespace retort::train
