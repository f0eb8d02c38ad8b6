// A group of ranks for work in which each has forward passes of its own between collectives, as many as it likes: an
// evaluation of a model whose weights ranks have divided (train/gathered_weights.h). No rank passes alone. Each pass begins
// with a vote whether any rank has one, and one that has come to a collective goes along with the others' passes first, so
// the collective is what all wait for, as ever. Rank and thread rule: the group's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "train/gathered_weights.h"

namespace retort::train {

class PassingComm final : public comm::Comm {
 public:
  // `comm` has the ranks that share the weights out, maybe others too. Both outlive it. Collective; the last use is a
  // collective.
  PassingComm(GatheredWeights& weights, comm::Comm& comm);
  ~PassingComm() override;
  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  std::string name() const override { return comm_.name(); }
  comm::Pending all_reduce(at::Tensor tensor, comm::Reduce reduce) override;
  comm::Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override;
  comm::Pending broadcast(at::Tensor tensor, int root) override;
  comm::Pending all_gather(at::Tensor out, at::Tensor in) override;
  comm::Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N,
                           std::vector<int64_t> bounds) override;
  comm::Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override;
  void barrier() override;
  comm::Flight* flight() override { return comm_.flight(); }
  [[noreturn]] void abort(const std::string& why, int exit_code) override;
  std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) override { return comm_.subgroup(ranks); }

 private:
  comm::Comm& after_passes();

  GatheredWeights& weights_;
  comm::Comm& comm_;
};

}  // namespace retort::train
