// Working weights of which a rank keeps the rows that it owns (train/owners.h), and has whole ones only while they are read
// (models/weight_groups.h): the group that is read and the one after it, which arrives meanwhile. Parameters that the same
// groups read are a unit: one piece of memory, of which each rank owns a run, so that a broadcast from each owner brings
// all of it, and what is shared is brought once. A parameter's working tensor stays the same one, and has no memory
// in between. Zero redundancy, stage 3: Rajbhandari et al. 2020, arXiv 1910.02054.
// One rank, one thread; collective, but for rows() and what it counts.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <vector>

#include "comm/comm.h"
#include "models/model.h"
#include "models/weight_groups.h"

namespace retort::train {

class GatheredWeights {
 public:
  // Of each parameter that ranks divide: rank r owns its rows [r] to [r + 1], and runs of all in declaration order.
  using Bounds = std::map<const models::Parameter*, std::vector<int64_t>>;
  using Rows = std::function<at::Tensor(const models::Parameter&)>;  // this rank's, of its working values
  // Of these parameters, those of the model's groups; their working tensors keep no values. Model and group outlive it.
  GatheredWeights(models::Model& model, const Bounds& bounds, comm::Comm& comm, const Rows& rows);
  ~GatheredWeights();
  GatheredWeights(const GatheredWeights&) = delete;
  GatheredWeights& operator=(const GatheredWeights&) = delete;

  bool has(const models::Parameter& p) const { return rows_.contains(&p); }
  // This rank's rows of the working values; after a change of any rank's, forget().
  const at::Tensor& rows(const models::Parameter& p) const { return rows_.at(&p); }
  void forget();                // what is whole
  void pass_apart(bool apart);  // train/passing_comm.h: each pass begins with a vote whether any rank has one
  void go_along();              // with the passes of others, until none has another
  void make_whole();            // all, which the working tensors keep; the last call
  int64_t bytes() const { return bytes_; }            // that are whole now
  int64_t most_bytes() const { return most_bytes_; }  // that were at once, so far
  int64_t brought_bytes() const { return brought_bytes_; }
  int64_t bytes_of(int64_t group) const;  // when it is whole

 private:
  struct Unit {
    std::vector<models::Parameter*> members;
    at::Tensor whole_N, mine_N;    // the first has memory only while it is `here`
    std::vector<at::Tensor> runs;  // of whole_N: what each rank owns
    std::vector<comm::Pending> arrival;
    bool here = false;  // or on its way
  };
  void lay_out(Unit& unit, const Bounds& bounds, const Rows& rows_of);
  void use(int64_t now, int64_t next);
  void bring(int64_t now, int64_t next);
  bool another_pass(bool mine) const;
  void pass(int64_t group);
  void start(Unit& unit);
  void release(Unit& unit);

  models::WeightGroups& model_;
  comm::Comm& comm_;
  std::vector<Unit> units_;
  std::vector<std::vector<size_t>> groups_;  // the units of each
  std::map<const models::Parameter*, at::Tensor> rows_;
  bool apart_ = false;
  int64_t reads_ = -1;  // apart: the group that was read last
  int64_t bytes_ = 0, most_bytes_ = 0, brought_bytes_ = 0;
};

}  // namespace retort::train
